"""Nuclei on a slide: found by a segmenter, measured, and kept in a store on disk."""
