"""Opening models: by zoo name, from a user's function, from safetensors and from ONNX; what is refused and how."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import quick
import torch
from fake_plugins import Shrink
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.core import registry
from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.errors import EdgetkError, InputError, PostconditionError, UnknownName
from edgetk.testing import TinyNet, tiny_bundle
from edgetk.toolkit import calling, checkpoint, source
from edgetk.toolkit.source import open_model
from edgetk.toolkit.tiny import LABELS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _module(folder: Path, body: str) -> str:
    """A module of its own name with that text; returns the name."""
    name = f"users_{abs(hash((str(folder), body)))}"
    (folder / f"{name}.py").write_text("import torch\nfrom torch import nn\n" + body)
    return name


# --- zoo ---


def test_zoo_models_without_weights_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "WEIGHTS", tmp_path)
    bundle = open_model("lmuformer-xs", labels=("a", "b"))
    assert bundle.name == "lmuformer-xs"
    assert bundle.labels == ("a", "b")
    assert source.is_untrained(bundle)
    assert bundle.clip is not None
    assert bundle.clip.outputs[0].shape == ("batch", 2)


def test_zoo_weights_are_loaded_and_count_for_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "WEIGHTS", tmp_path)
    untrained = open_model("lmuformer-xs", labels=("a", "b"))
    assert source.files("lmuformer-xs") == {}
    (tmp_path / "lmuformer-xs.safetensors").write_bytes(checkpoint.save_model(untrained, "float16"))
    trained = open_model("lmuformer-xs")
    assert not source.is_untrained(trained)
    assert trained.labels == ("a", "b")
    gap, _ = calling.difference(untrained, trained)
    assert 0 < gap < 1e-2  # float16 on disk
    assert list(source.files("lmuformer-xs")) == ["lmuformer-xs.safetensors"]
    with pytest.raises(InputError, match=r"labels must be those it was trained for \(a, b\), got x, y; leave --labels out"):
        open_model("lmuformer-xs", labels=("x", "y"))


def test_the_name_alone_is_the_default_variant() -> None:
    alone, named = open_model("ecoformer"), open_model("ecoformer-kws")
    assert (alone.name, alone.source) == ("ecoformer-kws", named.source)
    assert source.files("ecoformer") == source.files("ecoformer-kws") != {}


def test_unknown_names_get_the_closest() -> None:
    with pytest.raises(UnknownName, match=r"model 'lmufomer': no such model; did you mean lmuformer"):
        open_model("lmufomer")
    with pytest.raises(UnknownName, match=r"model 'lmuformer-xl': lmuformer has no variant 'xl'; did you mean lmuformer-"):
        open_model("lmuformer-xl")


# --- functions ---

GOOD = """
class Net(nn.Module):
    example = torch.zeros(1, 6)
    labels = ["a", "b", "c"]
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 3)
    def forward(self, x):
        return self.net(x)
def make():
    return Net()
"""


def test_a_module_with_an_example_becomes_a_bundle(here: Path) -> None:
    text = f"{_module(here, GOOD)}:make"
    bundle = open_model(text, task="tiny")
    assert bundle.signature.inputs[0].shape == ("batch", 6)
    assert bundle.signature.outputs[0].shape == ("batch", 3)
    assert (bundle.labels, bundle.task) == (("a", "b", "c"), "tiny")
    assert not bundle.module.training
    before = source.files(text)
    (here / f"{text.partition(':')[0]}.py").write_text("changed = 1")
    assert list(before) == list(source.files(text))
    assert before != source.files(text)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise OSError('broken')", r"must import, got OSError: broken; run from the folder it is in"),
        ("def mak(): pass", r"must have a function make, got none; did you mean mak"),
        ("def make(): return 1 / 0", r"make\(\) must give a model without arguments, got ZeroDivisionError"),
        ("def make(x): return x", r"make\(\) must give a model without arguments, got TypeError"),
        ("def make(): return 7", r"must give an edgetk Bundle or a torch nn\.Module, got int; return one"),
        ("def make(): return nn.Linear(6, 3)", r"must have an attribute `example`, a float32 tensor .*, got NoneType"),
        (GOOD.replace("(1, 6)", "(6)"), r"must have an attribute `example`.*, got torch\.float32 of shape \(6,\)"),
        (GOOD.replace("(1, 6)", "(1, 7)"), r"forward must accept its example of shape \(1, 7\), got RuntimeError: mat1"),
        (GOOD.replace("self.net(x)", "self.net(x).sum()"), r"must give one tensor of class scores .*, got shape \(\)"),
        (GOOD.replace("self.net(x)", "self.net(x[:1])"), r"clip output output must have shape \(batch, 3\), got \(1, 3\)"),
        (GOOD.replace("self.net(x)", "self.net(x) / 0"), r"clip output output must be finite, got NaN or infinity"),
        (GOOD.replace("self.net(x)", "self.net(x).double()"), r"clip output output must be float32, got torch\.float64"),
    ],
)
def test_functions_that_do_not_give_a_model(here: Path, body: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        open_model(f"{_module(here, body)}:make")
    assert "\n" not in str(caught.value)


def test_missing_modules_and_wrong_bundles(here: Path) -> None:
    with pytest.raises(InputError, match=r"model no_such:f: no_such must import, got ModuleNotFoundError"):
        open_model("no_such:f")
    body = """
from dataclasses import replace
from edgetk.testing import TinyNet, tiny_bundle
def make():
    b = tiny_bundle()
    return replace(b, signature=replace(b.signature, state=b.signature.state[:2]))
"""
    with pytest.raises(InputError, match=r"the stream form must accept inputs of shape .*, got TypeError"):
        open_model(f"{_module(here, body)}:make")


def test_labels_must_fit_the_outputs(here: Path) -> None:
    text = f"{_module(here, GOOD.replace('labels =', 'other ='))}:make"
    assert open_model(text, labels=("x", "y", "z")).labels == ("x", "y", "z")
    with pytest.raises(InputError, match=r"must have one output per label, got 3 outputs and 2 labels \(x, y\)"):
        open_model(text, labels=("x", "y"))


# --- safetensors ---


def _shrunk() -> Bundle:
    bundle = tiny_bundle()
    result = Shrink(5)(bundle)
    return bundle.with_body(
        result.body, PassRecord("shrink", {"hidden": 5}, {"hidden": 5}, result.structure), signature=result.signature
    )


@pytest.mark.usefixtures("plugins")
def test_a_stored_model_with_lineage_computes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    shrunk = _shrunk()
    path.write_bytes(checkpoint.save_model(shrunk))
    assert path.read_bytes() == checkpoint.save_model(shrunk)
    loaded = checkpoint.load_model(path, tiny_bundle())
    assert calling.difference(shrunk, loaded) == (0.0, "")
    assert loaded.lineage == shrunk.lineage
    assert loaded.signature == shrunk.signature
    assert loaded.labels == LABELS


def test_zoo_files_open_by_path(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    made = registry.load("model", "lmuformer")("xs", classes=3)
    path.write_bytes(checkpoint.save_model(made))
    loaded = open_model(str(path), labels=("a", "b", "c"))
    assert calling.difference(made, loaded) == (0.0, "")
    assert loaded.labels == ("a", "b", "c")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_safetensors(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(checkpoint.save_model(tiny_bundle())[:keep])
    with pytest.raises(InputError, match=r"m\.safetensors: must be a whole safetensors file of \d+ bytes, got: ") as caught:
        open_model(str(path))
    assert "\n" not in str(caught.value)


def test_foreign_and_missing_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save

    path = tmp_path / "m.safetensors"
    path.write_bytes(save({"w": torch.zeros(2)}))
    with pytest.raises(InputError, match=r"must be written by edgetk .*, got a safetensors file without it"):
        open_model(str(path))
    path.write_bytes(save({"w": torch.zeros(2)}, metadata={"edgetk": "{}"}))
    with pytest.raises(InputError, match=r"must be a whole safetensors file of \d+ bytes, got: 'schema_version'"):
        open_model(str(path))
    with pytest.raises(InputError, match=r"must be a readable file, got: No such file"):
        open_model(str(tmp_path / "none.safetensors"))


def _with_head(bundle: Bundle, **changes: object) -> bytes:
    """The file of `bundle` with other metadata."""
    from safetensors.torch import load, save

    content = checkpoint.save_model(bundle)
    head = checkpoint.read_head(content)
    assert head is not None
    return save(load(content), metadata={"edgetk": json.dumps({**head, **changes})})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"source": {"function": "os:abort"}},
            r"must name a model of the registry to be built, got 'os:abort'; a file may not",
        ),
        (
            {"source": {"model": "lmuformer", "variant": "xs", "config": {"x": 1}}},
            r"settings that lmuformer accepts, got TypeError",
        ),
        ({"source": {"model": "lmuformer", "variant": "zz", "config": {}}}, r"settings that lmuformer accepts, got KeyError"),
        (
            {"source": {"model": "lmuformer", "variant": "xs", "config": {"ffn": 7}}},
            r"exactly the model's weights, got .* as \(\d+,?.*\) instead of",
        ),
        ({"lineage": [{"name": "fold"}]}, r"must hold whole pass records, got one without 'settings'"),
        ({"labels": 3}, r"got: metadata of another form"),
        ({"signature": {"inputs": 3}}, r"must be a whole safetensors file of \d+ bytes, got: "),
        ({"schema_version": 99}, r"got: schema_version 99 \(this edgetk reads 1\)"),
    ],
)
def test_metadata_cannot_run_code_or_break_the_build(tmp_path: Path, changes: dict[str, object], text: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(_with_head(registry.load("model", "lmuformer")("xs"), **changes))
    with pytest.raises(InputError, match=text):
        open_model(str(path))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(checkpoint.save_model(tiny_bundle()))
    head = int.from_bytes(content[:8], "little") + 8
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(EdgetkError):  # any other exception fails the test
        checkpoint.load_model(path, tiny_bundle())


def test_state_that_is_no_tensor_is_not_stored() -> None:
    class Odd(TinyNet):
        def get_extra_state(self) -> int:
            return 3

    bundle = replace(tiny_bundle(), body=Odd())
    with pytest.raises(PostconditionError, match=r"tiny: state _extra_state must be a tensor to be stored, got int"):
        checkpoint.save_model(bundle)


# --- ONNX ---


def test_a_graph_opens_with_its_signature_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    graph = quick.stream_graph(tiny_bundle())
    onnx.helper.set_model_props(graph, {"labels": "a\nb\nc", "task": "tiny"})
    path.write_bytes(graph.SerializeToString())
    bundle = open_model(str(path))
    assert (bundle.name, bundle.labels, bundle.task) == ("net", ("a", "b", "c"), "tiny")
    assert [s.name for s in bundle.signature.state] == [s.name for s in tiny_bundle().signature.state]
    assert not bundle.is_torch


def test_wrong_and_truncated_graphs(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    content = quick.clip_graph(tiny_bundle()).SerializeToString()
    for broken in (b"", b"not a graph at all", content[: len(content) // 2], content[:-3]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"net\.onnx: must be an ONNX graph, got "):
            open_model(str(path))
    graph = quick.clip_graph(tiny_bundle())
    onnx.helper.set_model_props(graph, {"labels": "[1, "})
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"metadata labels: must be a JSON list or one label a line"):
        open_model(str(path))


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 4096)
    folder = tmp_path / "model"
    folder.mkdir()
    graph = quick.clip_graph(tiny_bundle())
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (folder / "net.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"external data of w1 must lie in the model's folder, got '\.\./secret'"):
        open_model(str(folder / "net.onnx"))
