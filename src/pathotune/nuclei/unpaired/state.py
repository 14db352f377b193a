"""Where a learning stands, as a file that holds numbers only.

Networks, the moments of their optimisers and a few plain numbers go into one safetensors file,
so that what was stopped goes on as if it had not been. Such a file can run no code, and one
from other settings, another slide or another program is not taken up.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pathotune.events import PathotuneError
from pathotune.marks.geojson import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "napari-pathotune unfinished nuclei"


def gather(
    networks: Mapping[str, nn.Module], optimisers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Return copies of all numbers of networks and optimisers, on the processor."""
    found: dict[str, Tensor] = {}
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            found[f"net.{name}.{key}"] = _kept(value)
    for name, optimiser in optimisers.items():
        for number, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                found[f"opt.{name}.{number}.{key}"] = _kept(torch.as_tensor(value))
    return found


def scatter(
    tensors: Mapping[str, Tensor],
    networks: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Put numbers from `gather` back.

    Raises
    ------
    RuntimeError
        They are of other networks.
    """
    for name, network in networks.items():
        head = f"net.{name}."
        network.load_state_dict(
            {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}
        )
    for name, optimiser in optimisers.items():
        state = optimiser.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"opt.{name}."):
                number, part = key.removeprefix(f"opt.{name}.").split(".", 1)
                moments.setdefault(int(number), {})[part] = value
        state["state"] = moments
        optimiser.load_state_dict(state)


def save(path: Path, key: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write where a learning stands; an old file is replaced whole or not at all.

    Parameters
    ----------
    path : Path
    key : str
        Of slide and settings.
    about : mapping
        Plain JSON.
    tensors : mapping of str to Tensor

    Raises
    ------
    PathotuneError
        The disk is full or the folder cannot be written.
    """
    from safetensors.torch import save as packed

    header = json.dumps({"format": FORMAT, "key": key, "about": dict(about)})
    data = packed(dict(tensors), {"pathotune": header})
    write_atomically(path, lambda file: file.write(data))


def load(path: Path, key: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Read where a learning stands; None: there is nothing of this slide and these settings.

    Raises
    ------
    PathotuneError
        The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("pathotune", "{}"))
            if header.get("format") != FORMAT or header.get("key") != key:
                return None
            return dict(header["about"]), {k: file.get_tensor(k) for k in file.keys()}
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None  # torn: it is written anew
    except OSError as error:
        raise PathotuneError(
            f"{path.name} cannot be read ({error.strerror or error}).",
            "Choose another place for the result.",
        ) from error


def _kept(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True).contiguous()
