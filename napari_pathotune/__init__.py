"""The napari front end: a few docks over the `pathotune` engine.

Nothing is imported here, so that napari's start-up costs nothing; the manifest
names the functions in `_contributions` that napari calls when they are needed.
"""

__version__ = "0.1.0"
