"""From a model to a class map of the slide."""
