"""Writes the small text encoders that show how transformers names and computes things.

Each is a folder as the hub stores it, with random weights, and beside it the last hidden
states that transformers gives for a sentence. The tests must get the same. transformers
is not a dependency: run this in an environment of its own.

    python training/text_encoders.py tests/engine/data/text
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from pathotune.models._torchvision import import_timm

import_timm()  # mends torchvision beside a CPU build of torch, which transformers imports
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
)

SENTENCE = "an image of colon tissue for tumour and stroma"
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def main() -> None:
    home = Path(sys.argv[1])
    words = {w: i for i, w in enumerate(["[UNK]", *sorted(set(SENTENCE.split()))])}
    small = {"vocab_size": len(words), "intermediate_size": 32, "max_position_embeddings": 16}
    torch.manual_seed(3)
    clip = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    networks = {
        "bert": BertModel(BertConfig(**SIZE, **small), add_pooling_layer=False),
        "clip": CLIPTextModel(CLIPTextConfig(**SIZE, **small, **clip)),
    }
    for name, network in networks.items():
        folder = home / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        network.eval().save_pretrained(folder)
        ids = torch.tensor([tokenizer.encode(SENTENCE).ids])
        with torch.inference_mode():
            hidden = network(input_ids=ids).last_hidden_state[0].contiguous()
        save_file({"hidden": hidden}, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
