"""Nuclei learnt from a slide without anybody outlining one.

Drawn masks are painted in the slide's own stain, first by a formula, then by a network
that learns to paint like the slide while a second one learns to read masks off tissue.
The second is the segmenter. Everything here is a job that can be stopped and taken up again.
"""
