"""Text encoders from a folder: BERT-like, the text half of CLIP, or a plain table of word pieces.

A folder as the hub stores it, with `tokenizer.json`, `config.json` and
`model.safetensors`, is enough. The two encoders are written out here because the library
they come from would be a very large dependency for two sentences; the tests hold
them against its numbers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_TABLES = ("embeddings", "embedding.weight", "embeddings.weight")
_LONGEST = 512


def encode(text: str, folder: Path) -> NDArray[np.float32]:
    """Return the tokens (T, D) of a text by the encoder in a folder.

    Raises
    ------
    PathotuneError
        Something is missing in the folder, or it is no encoder of these kinds.
    """
    tokens = tokenised(text, folder / "tokenizer.json")
    state = _state(folder)
    for name in _TABLES:
        if name in state and len(state) <= 3:
            return np.asarray(state[name].numpy()[tokens], np.float32)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        half = {k.removeprefix("text_model."): v for k, v in state.items() if "vision" not in k}
        if "encoder.layers.0.layer_norm1.weight" in half:
            return _clip(tokens, half, config.get("text_config", config))
        state = {k.removeprefix("bert.").removeprefix("roberta."): v for k, v in state.items()}
        if "embeddings.word_embeddings.weight" in state:
            return _bert(tokens, state, config)
    except (OSError, KeyError, ValueError, RuntimeError, IndexError) as error:
        raise PathotuneError(
            f"The text encoder in {folder.name} cannot be read ({error}).",
            "It needs tokenizer.json, config.json and model.safetensors that belong together.",
        ) from error
    raise PathotuneError(
        f"{folder.name} holds no text encoder of a known kind.",
        "Known are BERT-like encoders, the text part of CLIP, and tables of word pieces.",
    )


def tokenised(text: str, path: Path) -> list[int]:
    """Return the numbers of a text's word pieces.

    Raises
    ------
    PathotuneError
        The library is not installed, or the file is missing or damaged.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise PathotuneError(
            "Reading a text encoder needs the library tokenizers.",
            "Install it with: pip install tokenizers",
        ) from error
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, Exception) as error:
        raise PathotuneError(
            f"{path.name} of the text encoder cannot be read ({error}).",
            "Choose the folder of a text encoder with its tokenizer.json.",
        ) from error
    tokenizer.no_padding()
    ids: list[int] = tokenizer.encode(text).ids[:_LONGEST]
    return ids


def _state(folder: Path) -> dict[str, Any]:
    from pathotune.models.weights import read_state

    path = folder / "model.safetensors"
    if not path.is_file():
        raise PathotuneError(
            f"{folder} holds no model.safetensors.", "Choose the folder of a text encoder."
        )
    return read_state(path)


def _linear(x: Any, state: dict[str, Any], name: str) -> Any:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(x: Any, state: dict[str, Any], name: str, eps: float) -> Any:
    from torch.nn import functional

    weight = state[f"{name}.weight"]
    return functional.layer_norm(x, weight.shape, weight, state[f"{name}.bias"], eps)


def _attend(q: Any, k: Any, v: Any, heads: int, causal: bool) -> Any:
    from torch.nn import functional

    n, width = q.shape
    q, k, v = (t.view(n, heads, width // heads).transpose(0, 1)[None] for t in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return out[0].transpose(0, 1).reshape(n, width)


def _activation(name: str) -> Any:
    import torch
    from torch.nn import functional

    return {
        "gelu": functional.gelu,
        "relu": functional.relu,
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    }[name]


def _bert(tokens: list[int], state: dict[str, Any], config: dict[str, Any]) -> NDArray[np.float32]:
    """Return the last hidden states of a BERT-like encoder.

    Notes
    -----
    Devlin et al., BERT, NAACL 2019. RoBERTa's positions begin behind the padding's number.
    """
    import torch

    eps, heads = float(config.get("layer_norm_eps", 1e-12)), int(config["num_attention_heads"])
    act = _activation(config.get("hidden_act", "gelu"))
    roberta = "roberta" in str(config.get("model_type", ""))
    start = int(config.get("pad_token_id", 1)) + 1 if roberta else 0
    table = state["embeddings.position_embeddings.weight"]
    ids = torch.tensor(tokens[: len(table) - start])
    with torch.inference_mode():
        x = state["embeddings.word_embeddings.weight"][ids]
        x = x + table[start : start + len(ids)]
        x = x + state["embeddings.token_type_embeddings.weight"][0]
        x = _norm(x, state, "embeddings.LayerNorm", eps)
        for i in range(int(config["num_hidden_layers"])):
            at = f"encoder.layer.{i}"
            q, k, v = (
                _linear(x, state, f"{at}.attention.self.{n}") for n in ("query", "key", "value")
            )
            y = _linear(_attend(q, k, v, heads, False), state, f"{at}.attention.output.dense")
            x = _norm(x + y, state, f"{at}.attention.output.LayerNorm", eps)
            y = act(_linear(x, state, f"{at}.intermediate.dense"))
            y = _linear(y, state, f"{at}.output.dense")
            x = _norm(x + y, state, f"{at}.output.LayerNorm", eps)
        out: NDArray[np.float32] = x.float().numpy()
        return out


def _clip(tokens: list[int], state: dict[str, Any], config: dict[str, Any]) -> NDArray[np.float32]:
    """Return the last hidden states of CLIP's text encoder.

    Notes
    -----
    Radford et al., Learning Transferable Visual Models, ICML 2021, section 2.4.
    """
    import torch

    eps, heads = float(config.get("layer_norm_eps", 1e-5)), int(config["num_attention_heads"])
    act = _activation(config.get("hidden_act", "quick_gelu"))
    table = state["embeddings.position_embedding.weight"]
    ids = torch.tensor(tokens[: len(table)])
    with torch.inference_mode():
        x = state["embeddings.token_embedding.weight"][ids] + table[: len(ids)]
        for i in range(int(config["num_hidden_layers"])):
            at = f"encoder.layers.{i}"
            h = _norm(x, state, f"{at}.layer_norm1", eps)
            q, k, v = (_linear(h, state, f"{at}.self_attn.{n}_proj") for n in "qkv")
            x = x + _linear(_attend(q, k, v, heads, True), state, f"{at}.self_attn.out_proj")
            h = act(_linear(_norm(x, state, f"{at}.layer_norm2", eps), state, f"{at}.mlp.fc1"))
            x = x + _linear(h, state, f"{at}.mlp.fc2")
        out: NDArray[np.float32] = _norm(x, state, "final_layer_norm", eps).numpy()
        return out
