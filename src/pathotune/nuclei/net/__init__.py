"""The compact network for nuclei: what it is, what it learns, and how it becomes outlines."""
