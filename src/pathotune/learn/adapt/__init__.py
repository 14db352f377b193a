"""Training a network on marked tissue; everything here may import torch."""
