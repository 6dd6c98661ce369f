"""A BERT-type encoder out of a Hugging Face folder: config.json and model.safetensors, every name and shape checked.

No code is run from it. Such a folder is what `save_pretrained` writes; all-MiniLM-L6-v2 is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import InputError
from edgetk.models._bert_encoder import NAMES, BertEncoder, Config

if TYPE_CHECKING:
    from torch import Tensor

#: their setting -> ours
_SETTINGS = {
    "vocab_size": "vocabulary",
    "max_position_embeddings": "positions",
    "hidden_size": "dim",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn",
}
#: their setting -> the only value that this encoder has
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "type_vocab_size": 2, "position_embedding_type": "absolute"}
#: tensors that another head than ours would use
_UNUSED = ("pooler.", "cls.", "classifier.", "embeddings.position_ids")


def is_folder(folder: Path) -> bool:
    """True for a folder with the two files."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def read_config(folder: Path, length: int, classes: int) -> Config:
    """The folder's shape for inputs of `length` tokens. Raises InputError for another kind of model."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no table")
        for key, wanted in _FIXED.items():
            if (got := found.get(key, wanted if key == "position_embedding_type" else None)) != wanted:
                raise InputError(f"{path}: {key} must be {wanted}, got {got}; use the folder of a BERT-type encoder")
        sizes: dict[str, Any] = {ours: int(found[theirs]) for theirs, ours in _SETTINGS.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: must be the config of a BERT-type encoder, got: {error!r}; get the folder again") from error
    return Config(length=length, classes=classes, **sizes)


def read(folder: Path, length: int, classes: int) -> BertEncoder:
    """The encoder in `folder` in evaluation mode, with a fresh head of `classes` (0: none).

    Raises InputError for a folder that does not hold exactly such an encoder.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    config = read_config(folder, length, classes)
    path = folder / "model.safetensors"
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: must be a whole safetensors file, got: {error}; get it again") from error
    net = BertEncoder(config)
    state = _renamed(tensors, config.layers, path)
    own = {name: value for name, value in net.state_dict().items() if not name.startswith("head.")}
    missing = sorted(own.keys() - state.keys())
    wrong = [name for name in sorted(own.keys() & state.keys()) if own[name].shape != state[name].shape]
    if missing or wrong:
        what = f"no {missing[0]}" if missing else f"{wrong[0]} as {tuple(state[wrong[0]].shape)}"
        raise InputError(f"{path}: must hold the weights that config.json describes, got {what}; get the folder again")
    net.load_state_dict(state, strict=False)
    return net.eval()


def _renamed(tensors: Mapping[str, Tensor], layers: int, path: Path) -> dict[str, Tensor]:
    names = {}
    for theirs, ours in NAMES.items():
        for layer in range(layers if "{}" in theirs else 1):
            names[theirs.format(layer)] = ours.format(layer)
    state = {}
    for name, value in tensors.items():
        plain = name.removeprefix("bert.")
        if plain.startswith(_UNUSED):
            continue
        part, _, kind = plain.rpartition(".")
        if part not in names:
            raise InputError(f"{path}: must hold a BERT-type encoder, got the tensor {name}; use another folder")
        state[f"{names[part]}.{kind}"] = value.float()
    return state


__all__ = ["is_folder", "read", "read_config"]
