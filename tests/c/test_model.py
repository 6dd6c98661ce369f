"""The shipped int8 LMUFormer as C: onnxruntime's answers on real clips, every build the same, states as codes, sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from c_graphs import MODEL, Maker, build, clips, needs_cc, program, reference, write

from edgetk.core.errors import InputError, PreconditionError
from edgetk.export import c_run
from edgetk.export.c import emit
from edgetk.export.c.program import Program
from edgetk.export.c.steps import Convolve, Dense, FloatDense, Lookup
from edgetk.export.to_c import stream

FLUSH = 5


@pytest.fixture(scope="module")
def made() -> Program:
    return program(onnx.load(MODEL))


@pytest.fixture(scope="module")
def library(made: Program, tmp_path_factory: pytest.TempPathFactory) -> c_run.Library:
    return build(write(made, tmp_path_factory.mktemp("xs")))


@needs_cc
def test_scores_are_those_of_onnxruntime(library: c_run.Library) -> None:
    """Over whole clips and their flush, to 1e-4 where scores reach 20: integer sums are equal, float32 sums are rounded in
    another order, and nothing is amplified to another code on these clips."""
    frames = clips(6)
    expected = reference(onnx.load(MODEL), (frames,))[0]
    got = stream(library, (frames,), FLUSH)[0]
    assert got.shape == expected.shape == (6, 128 + FLUSH, 16)
    assert np.abs(expected).max() > 10
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


@needs_cc
def test_every_build_computes_the_same_bits(library: c_run.Library) -> None:
    frames = clips(2)[:, :40]
    results = {}
    for isa in ("avx512vnni", "avx2", "neon", "portable"):
        if not library.has(isa):
            continue
        library.use(isa)
        assert library.isa == isa
        results[isa] = stream(library, (frames,))[0]
    library.use(None)
    for isa, result in results.items():
        np.testing.assert_array_equal(result, results["portable"], err_msg=isa)


@needs_cc
def test_a_stream_starts_again_where_it_began(library: c_run.Library) -> None:
    frames, running = clips(1)[0, :12], library.stream()
    first = [running.step(x)[0] for x in frames]
    running.reset()
    np.testing.assert_array_equal(first, [running.step(x)[0] for x in frames])
    other = library.stream()
    running.reset()
    for x in frames:  # two streams share the arena, not the state
        np.testing.assert_array_equal(running.step(x)[0], other.step(x)[0])


def test_states_that_are_only_rounded_are_kept_as_codes(made: Program) -> None:
    kinds = {state.name: state.dtype for state in made.plan.states}
    codes = {name for name, dtype in kinds.items() if dtype == "uint8_t"}
    assert codes == {f"embed_conv{i}_past" for i in range(4)}
    assert kinds["mixer_memory"] == kinds["embed_position_past"] == "float", "what is computed with stays as it is"
    assert made.state_bytes == 4 * (6 + 96 + 48 + 16 + 1) + 256 + 3 * 96


def test_work_and_sizes(made: Program) -> None:
    weights = sum(s.weights.bytes for s in made.plan.steps if isinstance(s, Dense | FloatDense))
    assert made.plan.macs == {"int8": 59904, "float32": 5472}
    assert weights == 59904 + 4 * 5472
    assert sum(isinstance(s, Lookup) for s in made.plan.steps) == 1, "the GELU"
    assert not any(isinstance(s, Convolve) for s in made.plan.steps)
    assert made.arena_bytes < 2500
    header = emit.header(made)
    for what, value in (("CONSTANT", made.constant_bytes), ("STATE", made.state_bytes), ("ARENA", made.arena_bytes)):
        assert f"#define NET_{what}_BYTES {value}\n" in header


def test_buffers_share_bytes_only_where_no_step_needs_both(made: Program) -> None:
    from edgetk.export.c.steps import reads

    offsets = made.arena.offsets
    used = {
        b: [i for i, s in enumerate(made.plan.steps) if b in (s.target.buffer, *(r.buffer for r in reads(s)))] for b in offsets
    }
    for a in offsets:
        assert offsets[a] % 4 == 0
        assert offsets[a] + a.bytes <= made.arena_bytes
        for b in offsets:
            if a is not b and offsets[a] < offsets[b] + b.bytes and offsets[b] < offsets[a] + a.bytes:
                assert used[a][-1] < used[b][0] or used[b][-1] < used[a][0], f"{a.name} and {b.name}"


@needs_cc
def test_errors_of_the_runner(library: c_run.Library, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"c_run: isa must be one that this library and processor have, got 'mve'; leave it out"
    ):
        library.use("mve")
    with pytest.raises(InputError, match=r"c_run: input features must have 128 elements, got 3; give one step at a time"):
        library.stream().step(np.zeros(3, np.float32))
    with pytest.raises(InputError, match=r"c_run: .* must hold generated C with its Makefile, got none; run: edgetk export"):
        c_run.build(tmp_path)
    (tmp_path / "lib.so").write_bytes(b"no")
    with pytest.raises(InputError, match=r"c_run: .*lib.so must be a library of generated C, got: .*; build it with make"):
        c_run.load(tmp_path / "lib.so")


def refused(made: Maker) -> str:
    with pytest.raises(PreconditionError) as caught:
        program(made.model())
    return str(caught.value)


def test_what_c_has_no_form_for_is_refused_in_one_sentence() -> None:
    made = Maker()
    made.output("y", 1, 4)
    made.node("CumSum", made.input("x", 1, 4), made.value(1, np.int64), out="y")
    assert (
        refused(made) == "c: every operator must have a form in C, got CumSum CumSum_0; leave that layer out or export to onnx"
    )

    made = Maker()
    made.output("y", 3, 4)
    made.node("Add", made.input("x", 3, 4), made.input("b", 3, 1), out="y")
    program(made.model())

    made = Maker()
    made.output("y", 1, 2)
    x = made.rounded(made.input("x", 1, 4), 0.1, 3)
    made.node("MatMul", x, made.weights(np.ones((4, 2)), np.ones(4), 0), out="y")
    assert "c: weights must have a scale per output, got MatMul_" in refused(made)
