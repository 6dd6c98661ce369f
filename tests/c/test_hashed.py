"""Memory layers and binary attention in generated C: alone, in whole networks, and on emulated boards."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from c_graphs import Maker, build, needs, needs_cc, program, reference, run, write
from emulated import BOARDS, board_build, board_run, object_sections
from onnx import helper

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.errors import PreconditionError
from edgetk.export import c_run, functions, parity, to_c
from edgetk.export.c.plan import plan
from edgetk.export.c.program import Program
from edgetk.export.c.steps import BinaryAttention, TableRows
from edgetk.export.lower import lower
from edgetk.models import ecoformer, memoryformer
from edgetk.models.layers.memory_hash import FRACTION_BITS, TOP_CODE, WEIGHTINGS
from edgetk.models.layers.memory_layer import MemoryLayer, QuantMemoryLayer
from edgetk.targets import board
from edgetk.toolkit import source

HOST = board.load("host")


def with_bodies(made: Maker) -> onnx.ModelProto:
    """The graph with edgetk's operators and the bodies that onnxruntime runs them by."""
    graph = helper.make_graph(made.nodes, "net", made.inputs, made.outputs, made.constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("edgetk", 1)]
    model = functions.attach(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    for name in (o.name for o in made.outputs):
        assert name
    return model


def memory_layer(weighting: str, count: int, bits: int, outputs: int, rows: int = 1, temperature: float = 0.8) -> Maker:
    rng, made = np.random.default_rng(count), Maker()
    x = made.input("x", rows, count * bits)
    tables = made.value(rng.integers(-127, 128, (count, 2**bits, outputs)), np.int8)
    scale, bias = made.value(rng.uniform(1e-3, 2e-3, outputs)), made.value(rng.standard_normal(outputs))
    made.output("y", rows, outputs)
    settings = {"weighting": weighting, "temperature": temperature, "powers": [float(2**i) for i in range(bits)]}
    settings["offsets"] = [k * 2**bits for k in range(count)]
    made.node("LookupLinear", x, tables, scale, bias, out="y", domain="edgetk", **settings)
    return made


@needs_cc
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_memory_layers_add_integers(weighting: str, tmp_path: Path) -> None:
    """A weight on the edge of two codes may fall on either side, which moves each output by one row's entry; sums are exact."""
    model = with_bodies(memory_layer(weighting, 5, 3, 7, rows=2))
    x = np.random.default_rng(2).standard_normal((1, 12, 2, 15)).astype(np.float32)
    x[0, 0] = 0.0  # counts as positive
    got, expected = run(model, (x,), tmp_path)[0], reference(model, (x,))[0]
    step = 127 * 2e-3 / 2 ** FRACTION_BITS[weighting]
    bound = 1e-6 if weighting == "one" else step + 1e-6
    np.testing.assert_allclose(got, expected, rtol=0, atol=bound * max(1.0, float(np.abs(expected).max())))
    assert np.count_nonzero(got != expected) <= 0.1 * got.size


@needs_cc
def test_a_memory_layer_by_hand(tmp_path: Path) -> None:
    """Two tables of two bits. z = (1, -2): row 1, |z| = 3, code 3 * 2048; (-0.5, 0.25): row 2, |z| = 0.75, code 1536.

    Column 0: (6144 * 10 + 1536 * -4) / 2048 * 0.5 + 1 = (30 - 3) / 2 + 1 = 14.5. Column 1: (6144 * 1 + 1536 * 8) / 2048 = 9.
    """
    made = Maker()
    tables = np.zeros((2, 4, 2), np.int8)
    tables[0, 1], tables[1, 2] = (10, 1), (-4, 8)
    made.output("y", 1, 2)
    made.node(
        "LookupLinear", made.input("x", 1, 4), made.value(tables, np.int8), made.value([0.5, 1.0]), made.value([1.0, 0.0]),
        out="y", domain="edgetk", weighting="l1", temperature=1.0, powers=[1.0, 2.0], offsets=[0, 4],
    )  # fmt: skip
    got = run(with_bodies(made), (np.array([[[[1.0, -2.0, -0.5, 0.25]]]], np.float32),), tmp_path)[0]
    np.testing.assert_array_equal(got.reshape(-1), [14.5, 9.0])


@needs_cc
def test_a_large_weight_stops_at_the_top_code(tmp_path: Path) -> None:
    made = memory_layer("l1", 1, 2, 3)
    tables = onnx.numpy_helper.to_array(made.constants[0])
    scale, bias = (onnx.numpy_helper.to_array(made.constants[i]) for i in (1, 2))
    got = run(with_bodies(made), (np.full((1, 1, 1, 2), 100.0, np.float32),), tmp_path)[0]
    code = TOP_CODE["l1"] / 2 ** FRACTION_BITS["l1"]
    np.testing.assert_allclose(got.reshape(-1), tables[0, 3] * scale * code + bias, rtol=1e-6)


def attention(numerator: str, heads: int = 2, tokens: int = 9, bits: int = 5, width: int = 6) -> onnx.ModelProto:
    made = Maker()
    queries, keys = made.input("q", 1, heads, tokens, bits), made.input("k", 1, heads, tokens, bits)
    values = made.input("v", 1, heads, tokens, width)
    made.output("y", 1, heads, tokens, width)
    made.node("BinaryLinearAttention", queries, keys, values, out="y", domain="edgetk", numerator=numerator)
    return with_bodies(made)


@needs_cc
@pytest.mark.parametrize("numerator", ["own_token", "sum"])
def test_binary_attention_has_the_bits_of_its_definition(numerator: str, tmp_path: Path) -> None:
    """Values are small whole numbers, so that no sum is rounded in any order and one division is left."""
    rng, shape = np.random.default_rng(3), (1, 4, 1, 2, 9)
    codes = [rng.integers(-1, 2, (*shape, 5)).astype(np.float32) for _ in range(2)]
    values = rng.integers(-20, 21, (*shape, 6)).astype(np.float32)
    model = attention(numerator)
    got = run(model, (*codes, values), tmp_path)[0]
    np.testing.assert_array_equal(got, reference(model, (*codes, values))[0])
    q, k, v = codes[0][0, 0, 0], codes[1][0, 0, 0], values[0, 0, 0]
    weights = q @ k.transpose(0, 2, 1)
    own = v if numerator == "own_token" else np.broadcast_to(v.sum(1, keepdims=True), v.shape)
    by_hand = (weights @ v + 6 * own) / (weights.sum(-1, keepdims=True) + 9 * 6)
    np.testing.assert_allclose(got[0, 0], by_hand.reshape(-1), rtol=1e-6)


def spotter() -> Bundle:
    """A memory transformer of spectrograms, its tables int8."""
    torch.manual_seed(0)
    sizes = {"layers": 1, "dim": 16, "heads": 2, "features": 8, "length": 16, "patch": 2, "classes": 5, "bits": 2}
    bundle = memoryformer.build("base", **sizes)
    for name, layer in list(bundle.module.named_modules()):
        if isinstance(layer, MemoryLayer):
            bundle.module.set_submodule(name, QuantMemoryLayer.of(layer))
    return replace(bundle, task="")


def pyramid() -> Bundle:
    """An EcoFormer of spectrograms: 64 and 16 tokens with binary attention, 4 with softmax."""
    torch.manual_seed(0)
    sizes = {"size": (16, 16), "dims": (8, 16, 16), "depths": (1, 1, 1), "heads": (1, 2, 2), "mlp_ratios": (2, 2, 2)}
    return replace(ecoformer.build("kws", patch=(3, 2), classes=5, bits=4, anchors=8, **sizes), task="")


CLIPS = {"memoryformer": spotter, "ecoformer": pyramid}


def lowered(bundle: Bundle, form: str = "clip") -> Lowered:
    (low,) = lower(bundle, HOST, (form,))
    return low


@pytest.fixture(scope="module", params=CLIPS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Lowered, Program, Path]:
    """Name, graph, program and folder with sources of a whole network."""
    low = lowered(CLIPS[request.param]())
    made = Program("net", plan(low.graph, low.signature))
    return request.param, low, made, write(made, tmp_path_factory.mktemp(request.param))


def inputs(low: Lowered, n: int = 3) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((n, *low.signature.inputs[0].concrete()[1:])).astype(np.float32)


@needs_cc
def test_whole_clips_have_the_scores_of_the_model(clip: tuple[str, Lowered, Program, Path]) -> None:
    """Not more than rounding: 1e-5 of the largest score, on these inputs; a sign could fall on the other side on others."""
    name, low, made, folder = clip
    x = inputs(low)
    assert low.reference is not None
    expected = low.reference(x)[0]
    got = to_c.stream(build(folder), (x[:, None],))[0].reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    kind = TableRows if name == "memoryformer" else BinaryAttention
    assert sum(isinstance(step, kind) for step in made.plan.steps) == {"memoryformer": 3, "ecoformer": 2}[name]
    assert made.plan.macs.get("int8", 0) == (8 * (8 * 48 + 8 * 32 + 8 * 16) if name == "memoryformer" else 0)


@needs_cc
def test_every_build_computes_the_same_bits(clip: tuple[str, Lowered, Program, Path]) -> None:
    _, low, _, folder = clip
    library, results = build(folder), {}
    for isa in ("avx512vnni", "avx2", "neon", "portable"):
        if library.has(isa):
            library.use(isa)
            results[isa] = to_c.stream(library, (inputs(low)[:, None],))[0]
    library.use(None)
    assert "portable" in results
    for isa, result in results.items():
        np.testing.assert_array_equal(result, results["portable"], err_msg=isa)


@needs_cc
@needs("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize("name", BOARDS)
def test_microcontrollers_compute_the_same_bits_in_the_bytes_that_were_said(
    name: str, clip: tuple[str, Lowered, Program, Path]
) -> None:
    _, low, made, folder = clip
    x = inputs(low)
    x.tofile(folder / "frames.bin")
    found = board_run(board_build(name, folder, made), folder)
    assert (found.steps, found.isa) == (len(x), {"cortex-m4": "dsp", "cortex-m55": "mve"}[name])
    got = np.fromfile(folder / "outputs.bin", np.float32).reshape(len(x), -1)
    np.testing.assert_array_equal(got, to_c.stream(build(folder), (x[:, None],))[0][:, 0])
    sections = object_sections(name, folder, made)
    assert sections["net_data"][".rodata"] == made.constant_bytes
    assert sections["net"][".bss"] == made.arena_bytes
    assert sections["net"].get(".data", 0) == sections["net"].get(".rodata", 0) == 0


@needs_cc
@needs("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize(("name", "most"), [("cortex-m4", 4.1), ("cortex-m55", 1.3)])
def test_instructions_of_a_memory_layer(name: str, most: float, tmp_path: Path) -> None:
    """96 inputs in tables of 4 bits, 96 outputs: 2304 products, with what finding the rows costs."""
    model = with_bodies(memory_layer("one", 24, 4, 96))
    made = program(model)
    write(made, tmp_path)
    np.random.default_rng(0).standard_normal((4, 96)).astype(np.float32).tofile(tmp_path / "frames.bin")
    assert board_run(board_build(name, tmp_path, made), tmp_path).instructions / made.macs <= most


@needs_cc
def test_a_stream_with_memory_layers(tmp_path: Path) -> None:
    """The smallest LMUFormer with tables in the place of its matrices: a step reads one row of each table."""
    torch.manual_seed(1)
    bundle = source.open_model("lmuformer-xs")
    net = copy.deepcopy(bundle.module)
    places = [
        n for n, m in net.named_modules() if isinstance(m, torch.nn.Linear) and m.in_features % 4 == 0 and "conv" not in n
    ]
    for name in places[:2]:
        layer = net.get_submodule(name)
        assert isinstance(layer, torch.nn.Linear)
        net.set_submodule(name, QuantMemoryLayer.of(MemoryLayer(layer.in_features, layer.out_features, 4)))
    low = lowered(replace(bundle, body=net, task=""), "stream")
    made = Program("net", plan(low.graph, low.signature))
    assert sum(isinstance(step, TableRows) for step in made.plan.steps) == 2
    assert low.reference is not None
    x = np.random.default_rng(0).standard_normal((1, 12, *low.signature.inputs[0].concrete())).astype(np.float32)
    expected = parity.stream(low.reference, low.signature, (x,), 0)[0]
    got = to_c.stream(build(write(made, tmp_path)), (x,))[0].reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=0, atol=parity.bound(low) * np.abs(expected).max())


@needs_cc
def test_the_exporter_proves_whole_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")
    bundle = spotter()
    to_c.EXPORTER.check(bundle, HOST)
    files = to_c.EXPORTER((lowered(bundle),), bundle, HOST)
    assert files[0].parity is not None
    assert files[0].parity.passed
    header = next(f.content.decode() for f in files if f.name == "c/memoryformer.h")
    assert "a step takes one whole input" in header
    for file in files:
        (tmp_path / file.name).parent.mkdir(exist_ok=True)
        (tmp_path / file.name).write_bytes(file.content)
    about = c_run.load(c_run.build(tmp_path / "c")).about
    assert about["inputs"][0]["shape"] == [1, 16, 8]
    assert about["states"] == []
    if shutil.which("cc"):
        assert about["macs"] > 0


def test_too_many_tables_are_refused() -> None:
    model = with_bodies(memory_layer("l1", 517, 1, 2))
    with pytest.raises(
        PreconditionError, match=r"c: sums of a memory layer must fit into 32 bits, got .* with 517 tables; split"
    ):
        program(model)
