"""One file a tuning method; the file name is its key."""
