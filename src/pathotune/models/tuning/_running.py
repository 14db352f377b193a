"""A tuned model at work on tiles: the surface of a frozen backbone, logits instead of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune import plugins
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


class TunedBackbone(Backbone):
    """A tuned model; `tokens` gives centred logits (B, core, core, C)."""

    def __init__(self, card: TunedCard, device: str) -> None:
        assert card.bundle is not None
        super().__init__(card, device, [], None)
        self._net = net_of(card.bundle, device)

    def _forward(self, tiles: NDArray[np.uint8], crop: int) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            z: Any = self._net.logits(self._net.upper(self._net.lower(self._net.pixels(tiles))))
            if crop:
                z = z[:, crop:-crop, crop:-crop]
            z = z - z.mean(-1, keepdim=True)
            result: NDArray[np.float32] = z.float().contiguous().cpu().numpy()
            return result
