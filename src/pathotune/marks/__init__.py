"""What was drawn: classes, regions, their journal and their exchange format."""
