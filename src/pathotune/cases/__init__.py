"""What leaves the program: exports and the demonstration."""
