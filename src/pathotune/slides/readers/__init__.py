"""One file a reader; the file name is its key."""
