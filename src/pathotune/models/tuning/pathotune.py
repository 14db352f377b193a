"""PathoTune: prompts for the task, from words about it, and from the image itself.

Three kinds of prompts stand beside the image's tokens. Task visual prompts are
learned for every block; task text prompts come from a sentence about stain, organ
and classes; instance prompts are read off each image by a small module. Each can
be switched off. The backbone stays frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.models.tuning._delta import Delta, Setting, from_block, setting
from pathotune.models.tuning._prompting import Prompted, needs_tokens

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import State, Trunk

LABEL = "PathoTune"
ABOUT = "Prompts learned for the task, made from a sentence about it, and read off each image."
READS_WORDS = True


@dataclass(frozen=True)
class Config:
    """Settings of the three kinds of prompts."""

    visual: bool = setting(True, "Visual prompts", "Learned for the task, before every block.")
    text: bool = setting(True, "Text prompts", "Made from the sentence about the task.")
    instance: bool = setting(True, "Instance prompts", "Read off each image by a small module.")
    prompts: int = setting(20, "Number of visual prompts", "Before every block.", 1, 200)
    text_prompts: int = setting(8, "Number of text prompts", "From the sentence.", 1, 64)
    instance_prompts: int = setting(8, "Number of instance prompts", "From the image.", 1, 64)
    narrow: int = setting(
        4, "Narrowing", "The module that reads the image has 1/n of its channels.", 1, 16
    )
    dropout: float = setting(0.1, "Dropout", "Share of prompt values left out in training.", 0, 0.9)
    block: int = from_block()


serves = needs_tokens


class _Three(Prompted):
    """`[prefix | visual | text | instance | patches]`; text and instance prompts propagate."""

    counts: tuple[int, int, int] = (0, 0, 0)

    def start(self, state: State) -> Any:
        if "instance" not in self.modules:
            return None
        tokens = state.stem if state.stem is not None else state.x
        return self.modules["instance"](tokens[:, self.trunk.prefix :].float())

    def fresh(self, level: int, x: Any, context: Any) -> Any:
        import torch

        batch, out = len(x), []
        if "visual" in self.modules:
            out.append(self.modules["visual"](level - self.first, batch))
        if level > self.first:
            return out[0] if out else None
        if "text" in self.modules:
            out.append(self.modules["text"](batch))
        if context is not None:
            out.append(context)
        return torch.cat(out, 1)


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return the prompts for a trunk and a task.

    Raises
    ------
    PathotuneError
        All three kinds of prompts are switched off.

    Notes
    -----
    Lu et al., PathoTune, MICCAI 2024 (arXiv 2403.16497), section 2. Counts, initial values
    and the inner layout of the refine module are not published; those here are ours.
    """
    import torch

    from pathotune.models.tuning._layers import InstancePrompts, Prompts, TaskPrompts

    if not (config.visual or config.text or config.instance):
        raise PathotuneError(
            "PathoTune has nothing to train: all three kinds of prompts are off.",
            "Switch visual, text or instance prompts on.",
        )
    delta = _Three(trunk, setting.first(config.block, trunk.depth))
    slots = 0
    if config.visual:
        levels = trunk.depth - delta.first
        delta.modules["visual"] = Prompts(
            levels, config.prompts, trunk.width, delta.patch, config.dropout
        )
        slots += config.prompts
    if config.text:
        if "text" in setting.stored:
            text = np.asarray(setting.stored["text"], np.float32)
        else:
            from pathotune.models.text import embed

            found = embed(setting.sentence, setting.text_folder)
            text = found.tokens
            delta.facts |= {"sentence": setting.sentence, "encoder": found.encoder}
        delta.stored["text"] = text.astype(np.float16)
        words = torch.from_numpy(text.astype(np.float16).astype(np.float32))
        delta.modules["text"] = TaskPrompts(words, trunk.width, config.text_prompts)
        slots += config.text_prompts
    if config.instance:
        width = max(16, trunk.width // config.narrow // 4 * 4)
        delta.modules["instance"] = InstancePrompts(trunk.width, config.instance_prompts, width)
        delta.needs_stem = True
        slots += config.instance_prompts
    delta.take(slots)
    return delta
