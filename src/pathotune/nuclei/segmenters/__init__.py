"""What finds nuclei: one file each, its name the key.

A segmenter's module has `LABEL`, `ABOUT` and ``prepare(slide, seen)``, which
looks at the slide once and returns a `Segmenter` (see `nuclei/segmenter.py`).
"""
