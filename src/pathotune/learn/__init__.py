"""From marked regions to a model, and an honest account of it."""
