"""Lets timm be imported where torchvision's compiled part does not match torch.

A CPU build of torch next to a torchvision built for CUDA cannot load
torchvision's operators, and ``import torchvision`` (hence ``import timm``) then
stops at two operators nobody here uses. Declaring their schemas first is
enough. Where torchvision is fine, or absent, this does nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from pathotune.models.quiet import import_torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []  # a torch Library takes its schemas with it when it is collected


def mend() -> str:
    """Make torchvision importable; call this before timm is imported.

    Returns
    -------
    str
        "fine", "absent" or "mended", for the check-up.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        return "absent"
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return "mended" if _kept else "fine"
    import torch

    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _kept.append(library)
    for schema in _SCHEMAS:
        library.define(schema)
    importlib.import_module("torchvision")
    return "mended"


def import_timm() -> Any:
    """Import timm behind the mended torchvision, without stopping a window."""
    import_torch()
    mend()
    import_torch("timm")
    return importlib.import_module("timm")
