"""Weights of a nucleus network as one safetensors file whose header says what it is.

Arrays only, so that a stranger's file runs no code; 16 bits, which a network of
this size does not feel. The header carries the shape of the network and where the
weights come from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError
from pathotune.marks.geojson import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

KIND = "pathotune-nucleus-net"


def save(path: Path, network: Any, about: dict[str, str]) -> None:
    """Write a network's weights.

    Parameters
    ----------
    path : Path
    network : NucleusNet
    about : dict of str
        What else the header is to say.
    """
    from safetensors.torch import save as to_bytes

    arrays = {
        k: (v.half() if v.dtype.is_floating_point else v).contiguous().clone()
        for k, v in network.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    header = {**about, "kind": KIND, "widths": json.dumps(list(network.widths))}
    data = to_bytes(arrays, header)
    write_atomically(path, lambda file: file.write(data))


def load(path: Path) -> tuple[Any, dict[str, str]]:
    """Return the network in evaluation mode, float32, and its header.

    Raises
    ------
    PathotuneError
        The file is not there, damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    from pathotune.nuclei.net.network import NucleusNet

    hint = "Install napari-pathotune again, or choose the weights of a nucleus network."
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            arrays = {k: file.get_tensor(k) for k in file.keys()}
    except (OSError, SafetensorError) as error:
        raise PathotuneError(f"{path.name} cannot be read ({error}).", hint) from error
    if header.get("kind") != KIND:
        raise PathotuneError(f"{path.name} does not hold a nucleus network.", hint)
    try:
        network = NucleusNet(json.loads(header["widths"]))
        missing, extra = network.load_state_dict(
            {k: v.float() for k, v in arrays.items()}, strict=False
        )
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise PathotuneError(f"{path.name} does not fit its own description.", hint) from error
    if extra or any(not k.endswith("num_batches_tracked") for k in missing):
        raise PathotuneError(f"{path.name} does not fit its own description.", hint)
    return network.eval(), header
