"""One file an export format; the file name is its key."""
