"""The files: names, metadata, test data, proof."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_toys import CausalNet, causal, plain, quantized, target
from torch import nn

import edgetk
from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Emitted, Exporter
from edgetk.core.errors import ParityError, PostconditionError, PreconditionError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.export import graph as graphs
from edgetk.export import metadata, to_onnx
from edgetk.export.lower import lower
from edgetk.export.to_onnx import EXPORTER


class Frames:
    """Data of a task: real inputs of the clip form."""

    labels = ("a", "b", "c", "d")
    origin = "made up"

    def calibration(self, n: int) -> torch.Tensor:
        return torch.linspace(-1, 1, n * 6 * 5).reshape(n, 6, 5)


@pytest.fixture(scope="module")
def emitted() -> dict[str, Emitted]:
    bundle: Any = replace(causal(), data=Frames())
    facts = {"recipe_sha256": "ab12", "accuracy": {"top1": 0.5, "n": 10}, "unknown": "left out"}
    return {e.name: e for e in EXPORTER(lower(bundle, target()), bundle, target(), facts)}


def arrays(file: Emitted) -> dict[str, np.ndarray]:
    return dict(np.load(io.BytesIO(file.content), allow_pickle=False))


def test_is_a_plugin() -> None:
    exporter: Exporter = registry.load("exporter", "onnx")
    assert exporter is EXPORTER
    assert exporter.format == "onnx"


def test_files_and_proofs(emitted: dict[str, Emitted]) -> None:
    assert list(emitted) == [
        "model.onnx",
        "testdata/clip/inputs.npz",
        "testdata/clip/outputs.npz",
        "model.stream.onnx",
        "testdata/stream/inputs.npz",
        "testdata/stream/outputs.npz",
        "testdata/stream/sequence.npz",
    ]
    for file in emitted.values():
        assert (file.parity is not None) == (file.format == "onnx")
        assert file.parity is None or (file.parity.passed and file.parity.n == 8)
    onnx.checker.check_model(onnx.load_model_from_string(emitted["model.stream.onnx"].content), full_check=True)


def test_metadata_describes_the_stream(emitted: dict[str, Emitted]) -> None:
    session = ort.InferenceSession(emitted["model.stream.onnx"].content, providers=["CPUExecutionProvider"])
    entries = session.get_modelmeta().custom_metadata_map
    assert entries["schema_version"] == metadata.SCHEMA_VERSION
    assert entries["edgetk_version"] == edgetk.__version__
    assert entries["model_type"] == "causal"
    assert entries["labels"].splitlines() == ["a", "b", "c", "d"]
    assert entries["quantization"] == "float32"
    assert entries["target"] == "toy (power mode as it is, stack toy stack)"
    assert json.loads(entries["accuracy"]) == {"top1": 0.5, "n": 10}
    assert entries["recipe_sha256"] == "ab12"
    assert "unknown" not in entries
    assert (float(entries["period_s"]), float(entries["lookahead_s"])) == (0.01, 0.0)
    first = json.loads(entries["states"])[0]
    assert first == {
        "name": "state_taps_past",
        "output": "state_taps_past_out",
        "shape": [1, 2, 5],
        "dtype": "float32",
        "init": [],
        "holds": "values",
    }


def test_signature_comes_back_from_the_file(emitted: dict[str, Emitted]) -> None:
    for name in ("model.onnx", "model.stream.onnx"):
        model = onnx.load_model_from_string(emitted[name].content)
        assert graphs.signature_of(model) == emitted[name].lowered.signature
        assert ("states" in metadata.read(model)) == (name == "model.stream.onnx")


def test_test_data_are_what_the_file_computes(emitted: dict[str, Emitted]) -> None:
    for form, name in (("clip", "model.onnx"), ("stream", "model.stream.onnx")):
        session = ort.InferenceSession(emitted[name].content, providers=["CPUExecutionProvider"])
        wanted = arrays(emitted[f"testdata/{form}/outputs.npz"])
        got = session.run(list(wanted), arrays(emitted[f"testdata/{form}/inputs.npz"]))
        for a, b in zip(wanted.values(), got, strict=True):
            assert np.allclose(a, b, atol=1e-5)
    assert arrays(emitted["testdata/stream/inputs.npz"])["state_memory"].any()


def test_the_test_stream_starts_from_the_initial_state(emitted: dict[str, Emitted]) -> None:
    session = ort.InferenceSession(emitted["model.stream.onnx"].content, providers=["CPUExecutionProvider"])
    sequence = arrays(emitted["testdata/stream/sequence.npz"])
    state = {"state_taps_past": np.zeros((1, 2, 5), np.float32), "state_memory": np.zeros((1, 6), np.float32)}
    for x, y in zip(sequence["features"], sequence["logits"], strict=True):
        logits, past, memory = session.run(None, {"features": x, **state})
        state = {"state_taps_past": past, "state_memory": memory}
        assert np.allclose(logits, y, atol=1e-5)


def test_real_inputs_are_used_where_there_are_any(emitted: dict[str, Emitted]) -> None:
    assert np.array_equal(arrays(emitted["testdata/clip/inputs.npz"])["features"], Frames().calibration(8)[:4].numpy())
    assert np.array_equal(
        arrays(emitted["testdata/stream/sequence.npz"])["features"][:, 0, 0], Frames().calibration(8)[0].numpy()
    )


def test_same_input_same_bytes(emitted: dict[str, Emitted]) -> None:
    low = emitted["model.stream.onnx"].lowered
    bundle: Any = replace(causal(), data=Frames())
    again = EXPORTER([low], bundle, target(), {"recipe_sha256": "ab12", "accuracy": {"top1": 0.5, "n": 10}})
    assert [e.content for e in again] == [emitted[e.name].content for e in again]


def test_int8_file_is_small_and_says_so() -> None:
    bundle = quantized()
    file = EXPORTER(lower(bundle, target()), bundle, target())[0]
    assert metadata.read(onnx.load_model_from_string(file.content))["quantization"] == "int8"
    assert file.parity is not None
    assert file.parity.bound == pytest.approx(0.05 * file.parity.scale)


def test_a_fixed_batch_is_exported_as_declared() -> None:
    signature = Signature((TensorSpec("x", (1, 3)),), (TensorSpec("y", (1, 2)),))
    bundle = replace(plain(nn.Linear(3, 2), (3,), (2,)), signature=signature)
    files = {e.name: e for e in EXPORTER(lower(bundle, target()), bundle, target())}
    assert arrays(files["testdata/clip/inputs.npz"])["x"].shape == (1, 3)


def test_a_users_graph_is_proven_and_described(emitted: dict[str, Emitted]) -> None:
    body = onnx.load_model_from_string(emitted["model.stream.onnx"].content)
    del body.metadata_props[:]
    bundle = Bundle("user", body, graphs.signature_of(body))
    files = EXPORTER(lower(bundle, target()), bundle, target())
    assert files[0].name == "model.stream.onnx"
    assert files[0].parity is not None
    assert metadata.read(onnx.load_model_from_string(files[0].content))["model_type"] == "user"


def test_front_end_of_the_task_is_in_the_metadata() -> None:
    bundle = causal()
    low = lower(bundle, target(), ["stream"])[0]
    entries = metadata.describe(low, bundle, target(), {"sample_rate": 16000, "n_mels": 128}, {})
    assert entries["sample_rate"] == "16000"
    assert json.loads(entries["front_end"]) == {"n_mels": 128, "sample_rate": 16000}


def test_a_model_that_changed_after_lowering_is_not_written() -> None:
    bundle = causal()
    low = lower(bundle, target(), ["stream"])[0]
    net: CausalNet = bundle.body
    with torch.no_grad():
        net.head.bias += 1
    with pytest.raises(ParityError, match="output logits of the stream form"):
        EXPORTER([low], bundle, target())


def test_refuses_a_graph_that_lost_its_interface_or_the_checker() -> None:
    bundle = causal()
    low = lower(bundle, target(), ["stream"])[0]
    with pytest.raises(PostconditionError, match="onnx: the graph must keep the signature, got inputs"):
        EXPORTER([replace(low, signature=replace(low.signature, state=()))], bundle, target())
    broken = onnx.ModelProto()
    broken.CopyFrom(low.graph)
    broken.graph.node[0].op_type = "Nothing"
    with pytest.raises(PostconditionError, match=r"onnx: the graph must pass the ONNX checker, got: .*Nothing"):
        EXPORTER([replace(low, graph=broken)], bundle, target())


def test_refuses_files_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = causal()
    low = lower(bundle, target(), ["stream"])[0]
    monkeypatch.setattr(to_onnx.graphs, "MAX_BYTES", 10)
    with pytest.raises(PostconditionError, match=r"onnx: a file must be below 2 GiB, got .* bytes; shrink the model"):
        EXPORTER([low], bundle, target())


def test_check_needs_a_signature() -> None:
    EXPORTER.check(causal(), target())
    with pytest.raises(PreconditionError, match="onnx: causal must have inputs and outputs, got none"):
        EXPORTER.check(replace(causal(), signature=Signature((), ())), target())
