"""The BERT-type encoder: a Hugging Face folder loads exactly, segments and padding follow from the tokens, and refusals."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgetk.core.errors import InputError, UsageError
from edgetk.models import _bert_published as published
from edgetk.models import dsformer
from edgetk.models._bert_encoder import NAMES, SEP, BertEncoder, Config
from edgetk.toolkit import source

TINY = Config(length=12, vocabulary=200, positions=16, dim=16, layers=2, heads=2, ffn=32)
#: first eight numbers of the mean-pooled, normalised vectors of all-MiniLM-L6-v2, by transformers 5.24 and torch 2.13
GOLDEN = {
    "This is an example sentence": [
        0.06765689, 0.06349589, 0.04871306, 0.07930497, 0.03744798, 0.00265290, 0.03937496, -0.00709840,
    ],
    "Each sentence is converted": [
        0.08643860, 0.10276259, 0.00539450, 0.00204440, -0.00996338, 0.02538556, 0.04928753, -0.03062658,
    ],
}  # fmt: skip


def folder_of(net: BertEncoder, folder: Path, prefix: str = "", **changes: Any) -> Path:
    """The encoder as `save_pretrained` would write it, with a pooler that nobody uses."""
    shape = net.config
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "type_vocab_size": 2,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    names = {ours.format(i): theirs.format(i) for theirs, ours in NAMES.items() for i in range(shape.layers)}
    tensors = {
        f"{prefix}{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value.clone()
        for name, value in net.state_dict().items()
        if not name.startswith("head")
    }
    save_file({**tensors, f"{prefix}pooler.dense.weight": torch.zeros(1)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_folder_loads_exactly(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    net = BertEncoder(replace(TINY, classes=0)).eval()
    got = published.read(folder_of(net, tmp_path, prefix), TINY.length, 0)
    x = torch.randint(0, 200, (3, 12))
    assert torch.equal(got(x), net(x))
    assert not got.training


def test_an_attention_by_hand() -> None:
    """One head that copies: with equal scores each real token gets the mean of the real tokens, and padding nothing."""
    config = replace(TINY, heads=1, dropout=0.0)
    from edgetk.models._bert_encoder import MASKED, Attention

    made = Attention(config).eval()
    with torch.no_grad():
        for layer in (made.query, made.key):
            layer.weight.zero_()
            layer.bias.zero_()
        for layer in (made.value, made.output):
            layer.weight.copy_(torch.eye(16))
            layer.bias.zero_()
        x = torch.randn(1, 3, 16)
        got = made(x, torch.tensor([0.0, 0.0, MASKED])[None, None, None])
    torch.testing.assert_close(got[0], x[0, :2].mean(0).expand(3, 16))


def test_padding_changes_nothing_and_the_second_segment_begins_after_sep() -> None:
    torch.manual_seed(0)
    net = BertEncoder(TINY).eval()
    text = torch.tensor([[101, 7, 8, SEP, 9, SEP]])
    padded = torch.nn.functional.pad(text, (0, 6))
    torch.testing.assert_close(net(padded), net(text), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        before = net.embeddings(padded)
        net.embeddings.segment.weight[1] += torch.arange(16.0)  # a constant would vanish in the norm
        moved = (net.embeddings(padded) - before).abs().sum(-1)[0] > 1e-3
    assert moved.tolist() == [False] * 4 + [True] * 2 + [False] * 6


def test_any_numbers_give_finite_scores() -> None:
    net = BertEncoder(TINY).eval()
    for x in (torch.zeros(2, 12), torch.full((2, 12), -5.0), torch.full((2, 12), 1e9)):
        assert bool(net(x).isfinite().all())
    assert torch.equal(net(torch.full((1, 12), 7.0)), net(torch.full((1, 12), 7)))


def test_matrices_are_the_encoders_linears() -> None:
    names = BertEncoder(TINY).matrices()
    assert len(names) == 12
    assert names[:3] == tuple(f"layers.0.attention.{n}" for n in ("query", "key", "value"))
    assert names[-2:] == ("layers.1.up", "layers.1.down")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bert: dim must be a multiple of heads, got 16 and 3; change one of them"):
        replace(TINY, heads=3)
    with pytest.raises(UsageError, match=r"bert: length must be in \[2, 16\], as many as there are positions, got 17"):
        replace(TINY, length=17)
    net = BertEncoder(TINY)
    with pytest.raises(InputError, match=r"config\.json: model_type must be bert, got roberta; use the folder of a BERT"):
        published.read(folder_of(net, tmp_path, model_type="roberta"), 12, 2)
    config = json.loads((folder_of(net, tmp_path) / "config.json").read_text())
    del config["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: must be the config of a BERT-type encoder, got: KeyError"):
        published.read(tmp_path, 12, 2)
    with pytest.raises(InputError, match=r"that config\.json describes, got layers\.0\.down\.weight as \(16, 32\)"):
        published.read(folder_of(net, tmp_path, intermediate_size=48), 12, 2)
    path = folder_of(net, tmp_path) / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"got no layers\.1\.down\.bias; get the folder again"):
        published.read(tmp_path, 12, 2)
    save_file({**tensors, "decoder.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"must hold a BERT-type encoder, got the tensor decoder\.weight; use another folder"):
        published.read(tmp_path, 12, 2)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="must be a whole safetensors file"):
        published.read(tmp_path, 12, 2)


def test_the_command_line_opens_folders(tmp_path: Path) -> None:
    net = BertEncoder(replace(TINY, positions=64, length=64))
    bundle = source.open_model(str(folder_of(net, tmp_path)), "sst2", ("negative", "positive"))
    assert (bundle.name, bundle.task, bundle.labels) == ("dsformer", "sst2", ("negative", "positive"))
    assert list(source.files(str(tmp_path))) == ["model.safetensors"]
    assert bundle.source["config"]["vocabulary"] == 200
    assert bundle.signature.inputs[0].shape == ("batch", 64)
    with pytest.raises(InputError, match="needs a task of texts, got cifar10; name one with --task"):
        dsformer.open_folder(tmp_path, "cifar10")
    (tmp_path / "model.safetensors").unlink()
    assert dsformer.open_folder(tmp_path) is None
    with pytest.raises(InputError, match=r"must be a folder of pretrained weights \(config\.json and model\.safetensors\)"):
        source.open_model(str(tmp_path))


def test_minilm_gives_its_published_embeddings() -> None:
    from edgetk.tasks.text.wordpiece import encode

    folder = Path(os.environ.get("EDGETK_MINILM", ""))
    if "EDGETK_MINILM" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_MINILM is not set to the folder of all-MiniLM-L6-v2")
    net = published.read(folder, 64, 0)
    with torch.no_grad():
        got = torch.nn.functional.normalize(net(encode([(text,) for text in GOLDEN], 64)))
    torch.testing.assert_close(got[:, :8], torch.tensor(list(GOLDEN.values())), rtol=0, atol=2e-6)
