"""A tuned model at work on tiles: the surface of a frozen backbone, logits instead of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune import plugins
from pathotune.models import runtime
from pathotune.models.backbones import Backbone
from pathotune.models.tuned import METHODS, TunedCard, config_of
from pathotune.models.tuning._delta import Setting
from pathotune.models.tuning._net import Net

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathotune.models.bundle import ModelBundle


def net_of(bundle: ModelBundle, device: str) -> Net:
    """Return the network of a tuned bundle with everything learnt in place.

    Raises
    ------
    PathotuneError
        Weights missing, or parts that do not fit the method.
    """
    method = plugins.load(METHODS, bundle.method)
    told = bundle.meta.get("tuning", {})
    net = Net(bundle.card(), device)
    stored = {
        k.removeprefix("stored."): v for k, v in bundle.arrays.items() if k.startswith("stored.")
    }
    setting = Setting(stored=stored, sentence=str(told.get("sentence", "")))
    net.attach(method, config_of(method, told.get("config", {})), setting)
    net.fill(bundle.arrays)
    if net.delta is not None:
        net.delta.modules.eval()
    return net


class TunedEngine:
    """Runs a tuned network with torch in 32 bits; what it gives are centred logits."""

    lanes = 1
    name = "torch, f32"

    def __init__(self, net: Net) -> None:
        self._net = net

    def run(self, tiles: NDArray[np.uint8], threads: int) -> NDArray[np.float32]:
        """Return the logits (B, T, T, C) of whole tiles (B, P, P, 3)."""
        import torch

        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        net = self._net
        with torch.inference_mode():
            z: Any = net.logits(net.upper(net.lower(net.pixels(tiles))))
            z = z - z.mean(-1, keepdim=True)
            result: NDArray[np.float32] = z.float().contiguous().cpu().numpy()
            return result


def tuned_backbone(card: TunedCard, device: str) -> Backbone:
    """Return a tuned model as a backbone whose tokens are logits."""
    assert card.bundle is not None
    net = net_of(card.bundle, runtime.split(device)[0])
    return Backbone(card, device, [], None, TunedEngine(net))
