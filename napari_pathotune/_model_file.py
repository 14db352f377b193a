"""Keeping the fast model in a file and taking a model from one.

A file holds more than numbers: which backbone it needs, how the slide must be seen, what
it learned from and how well it did there, so that another slide, another computer or the
command line can use it, or be told plainly why they cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_pathotune._session import Session


def save(session: Session, path: Path) -> Path:
    """Write the model in use to `path`: the loaded one, or else the fast model as it is now.

    Raises
    ------
    PathotuneError
        There is no model yet, or the file cannot be written.
    """
    bundle = session.bundle if session.bundle is not None else fast_bundle(session)
    bundle.save(path)
    return path


def load(session: Session, path: Path) -> Any:
    """Return the model in a file, checked against the backbones on this computer.

    Raises
    ------
    PathotuneError
        The file is not a model of ours, is damaged, or needs a backbone that is not here.
    """
    from pathotune.models.bundle import ModelBundle

    return ModelBundle.load(path)


def fast_bundle(session: Session) -> Any:
    """Return the fast model with all that is needed to use it elsewhere."""
    raise PathotuneError("There is no model yet.", "Mark two classes first.")
