"""Backbones, their token features, and the bundles that carry a trained head."""
