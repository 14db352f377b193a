"""Tuned models as backbones: where a frozen network gives features, these give logits.

A tuned model is run over a slide by the same readers, stores and painters as the
fast one. Its card is the backbone's with another identity, and what it stores for a
token are the logits, so that a map of it costs a few bytes a token and never meets
another model's features. No torch before a network is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune import plugins
from pathotune.events import PathotuneError
from pathotune.models.cards import ModelCard
from pathotune.models.tuning.linear import LinearHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pathotune.models.backbones import Backbone
    from pathotune.models.bundle import ModelBundle

METHODS = "pathotune.models.tuning"


@dataclasses.dataclass(frozen=True, slots=True)
class TunedCard(ModelCard):
    """A backbone's card, changed by a bundle: `dims` are the classes, `hash` is its own."""

    bundle: ModelBundle | None = dataclasses.field(default=None, compare=False)
    digest: str = ""

    def hash(self) -> str:
        """Return the identity of the tuned model's logits."""
        return self.digest


def card_of(bundle: ModelBundle) -> ModelCard:
    """Return the card whose features `head_of` reads: the backbone's, or the tuned one.

    Raises
    ------
    PathotuneError
        The backbone is not on this computer, or differs.
    """
    base = bundle.card()
    if bundle.method == "linear":
        return base
    told = json.dumps([bundle.card_hash, bundle.method, bundle.meta.get("tuning")], sort_keys=True)
    digest = hashlib.sha256(told.encode())
    for key in sorted(bundle.arrays):
        if key != "temperature":
            digest.update(key.encode())
            digest.update(np.ascontiguousarray(bundle.arrays[key]).tobytes())
    facts = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
    facts |= {"dims": len(bundle.classes), "bundle": bundle}
    return TunedCard(**facts, digest=digest.hexdigest()[:16])


def head_of(bundle: ModelBundle) -> LinearHead:
    """Return the head that reads what `card_of` names.

    Raises
    ------
    PathotuneError
        A method of a newer program, or a damaged file.
    """
    n = len(bundle.classes)
    if bundle.method not in plugins.names(METHODS):
        raise PathotuneError(
            f"This model was made with the method {bundle.method}, which this version cannot run.",
            "Update napari-pathotune.",
        )
    if bundle.method == "linear":
        head = LinearHead.from_arrays(bundle.arrays)
    else:
        heat = bundle.arrays.get("temperature", np.ones(1, np.float32))
        eye = np.eye(n, dtype=np.float32)
        head = LinearHead.from_arrays({"weight": eye, "bias": np.zeros(n), "temperature": heat})
    if head.weight.shape[1] != n:
        raise PathotuneError("This model file is damaged.", "Save the model again.")
    return head


def config_of(method: Any, values: Mapping[str, Any]) -> Any:
    """Return a method's settings from plain values.

    Raises
    ------
    PathotuneError
        A setting that the method does not have, or a value out of its range.
    """
    known = {f.name: f for f in dataclasses.fields(method.Config)}
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise PathotuneError(
                f"There is no setting {name!r} for this method.",
                f"It has: {', '.join(known) or 'none'}.",
            )
        made[name] = _value(known[name], value)
    return method.Config(**made)


def _value(field: dataclasses.Field[Any], value: Any) -> Any:
    default: Any = field.default
    kind, facts = type(default), field.metadata
    try:
        if kind is bool and isinstance(value, str):
            yes = value.lower() in {"1", "true", "yes", "on"}
            if not yes and value.lower() not in {"0", "false", "no", "off"}:
                raise ValueError
            made: Any = yes
        else:
            made = kind(value)
    except (TypeError, ValueError):
        raise PathotuneError(
            f"{value!r} is no value for {field.name}.", f"Give a {kind.__name__}."
        ) from None
    choices, low, high = facts.get("choices"), facts.get("min"), facts.get("max")
    if choices and made not in choices:
        raise PathotuneError(
            f"{field.name} cannot be {made!r}.", f"Choose one of: {', '.join(choices)}."
        )
    if (low is not None and made < low) or (high is not None and made > high):
        raise PathotuneError(f"{field.name} = {made} is out of range.", f"From {low} to {high}.")
    return made


def load_tuned(card: TunedCard, device: str) -> Backbone:
    """Return a tuned model ready to run on tiles.

    Raises
    ------
    PathotuneError
        Weights missing, or a bundle whose parts do not fit its method.
    """
    from pathotune.models.tuning._running import tuned_backbone

    return tuned_backbone(card, device)
