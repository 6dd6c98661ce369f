"""Generated C in the C++ runner: the bits of Python's C runtime, no allocation, and one sentence for each wrong library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cpp_build import Done, require, run
from test_runner import listened, made, model, numbers, spoken, write_wav
from test_runner_errors import said

from edgetk.export import c_run, to_c
from edgetk.export.graph import fingerprint
from edgetk.export.lower import lower
from edgetk.models import memoryformer
from edgetk.targets import board
from edgetk.tasks.speech.detect import Rule

Call = Callable[..., Done]


def replayed(engine: Path, features: np.ndarray, each_frame: bool = False) -> np.ndarray:
    """What Python's runtime of the same library gives for frames and flush, without the rows before the look-ahead."""
    stream = c_run.load(engine).stream()
    sums = {name: part.copy() for name, part in stream.states.items() if each_frame and name.startswith("head_")}
    rows = []
    for t, frame in enumerate([*features, *np.zeros((5, features.shape[1]), np.float32)]):
        if t == len(features):
            stream.states["valid"][0] = 0
        for name, first in sums.items():
            stream.states[name][:] = first
        rows.append(stream.step(frame)[0])
    return np.stack(rows)[5:]


@pytest.mark.parametrize("scoring", ["running", "each_frame"])
def test_scores_have_the_bits_of_pythons_c_runtime(project: Path, engine: Path, drive: Call, scoring: str) -> None:
    features = project / "testdata" / "features.npy"
    got = numbers(drive("steps", f"{model(project)}+{engine}", features, scoring))
    np.testing.assert_array_equal(got, replayed(engine, np.load(features), scoring == "each_frame"))


def test_streams_of_one_library_do_not_share_states(project: Path, engine: Path, drive: Call) -> None:
    features = project / "testdata" / "features.npy"
    together = numbers(drive("two", f"{model(project)}+{engine}", features))
    np.testing.assert_array_equal(together, replayed(engine, np.load(features))[: len(together)])


def test_a_step_in_c_allocates_nothing(project: Path, engine: Path, drive: Call) -> None:
    done = drive("allocations", f"{model(project)}+{engine}", project / "testdata" / "clip.wav")
    assert done.stdout == "100 hops, 0 allocations; making a stream: some\n"
    if shutil.which("nm"):
        wanted = {
            line.split()[-1].partition("@")[0] for line in run("nm", "-D", "--undefined-only", engine).stdout.splitlines()
        }
        assert "memcpy" in wanted
        assert not wanted & {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "free"}


def test_listening_with_c_detects_what_python_detects(project: Path, build: Path, engine: Path, tmp_path: Path) -> None:
    samples = spoken(4)
    sound = write_wav(tmp_path / "speech.wav", samples)
    options = ("--threshold", "0.7", "--window", "60", "--hold", "2", "--refractory", "80")
    found = {}
    for isa in ("portable", "avx2", "avx512vnni", "neon", ""):
        chosen = ("--isa", isa) if isa else ()
        if not isa or c_run.load(engine).has(isa):
            done = run(build / "edgetk_listen", "--engine-library", engine, *chosen, *options, sound)
            found[json.loads(done.stderr)["runtime"]] = done.stdout
    assert "generated C, portable" in found
    assert len(set(found.values())) == 1
    got = [json.loads(line) for line in found["generated C, portable"].splitlines()]
    assert [(d["step"], d["label"]) for d in got] == listened(project, samples, Rule(60, 0.7, 2, 80))
    assert len(got) >= 2


def test_file_and_library_name_the_same_graph(project: Path, engine: Path) -> None:
    graph = onnx.load(model(project))
    named = {p.key: p.value for p in graph.metadata_props}["graph_sha256"]
    assert named == c_run.load(engine).about["graph_sha256"] == fingerprint(graph)
    graph.graph.initializer[0].raw_data = bytes(len(graph.graph.initializer[0].raw_data))
    assert fingerprint(graph) != named


def test_a_model_without_states_runs_at_once_in_c(build: Path, tmp_path: Path) -> None:
    require("make", "cc")
    sizes = {"layers": 1, "dim": 16, "heads": 2, "features": 8, "length": 16, "patch": 2, "classes": 5, "bits": 2}
    bundle = replace(memoryformer.build("base", **sizes), task="")
    path = made(bundle, tmp_path, "clip")
    (low,) = lower(bundle, board.load("host"), ("clip",))
    for name, content in to_c.project(low, bundle).items():
        (tmp_path / name).write_bytes(content)
    library = c_run.build(tmp_path)
    line = run(build / "edgetk_check", "whole", path, tmp_path / "testdata", library).stdout
    assert line.startswith("outputs.npy: 2 of 2 rows")
    assert line.endswith(": equal\n")


def fake(folder: Path, about: Any) -> Path:
    """A library with the interface of generated C that says `about` of itself."""
    require("cc")
    text = about if isinstance(about, str) else json.dumps(about)
    (folder / "fake.c").write_text(
        f"const char *edgetk_c_about(void) {{ return {json.dumps(text)}; }}\n"
        'int edgetk_c_use(const char *isa) { return isa ? -1 : 0; }\nconst char *edgetk_c_isa(void) { return "none"; }\n'
        "void edgetk_c_reset(void *state) { (void)state; }\n"
        "void edgetk_c_step(void *s, const float *const *i, float *const *o) { (void)s, (void)i, (void)o; }\n"
    )
    run("cc", "-shared", "-fPIC", folder / "fake.c", "-o", folder / "fake.so")
    return folder / "fake.so"


def renamed(about: dict[str, Any], kind: str, **changes: Any) -> dict[str, Any]:
    first, *rest = about[kind]
    return {**about, kind: [{**first, **changes}, *rest]}


def test_a_library_of_something_else_is_refused(project: Path, engine: Path, drive: Call, tmp_path: Path) -> None:
    about, features = dict(c_run.load(engine).about), project / "testdata" / "features.npy"
    both = "as the model file has, got"
    wanted = {
        "nonsense": ("about", "must tell what it computes, got: JSON must have a value at character 0"),
        "old": (
            {k: v for k, v in about.items() if k != "graph_sha256"},
            "must tell what it computes, got: key graph_sha256 must be a text, got nothing; export it again",
        ),
        "inputs": (
            renamed(about, "inputs", size=64),
            f"must have inputs features[128] {both} features[64]; export both from one model",
        ),
        "outputs": ({**about, "outputs": []}, f"must have outputs logits[16] {both} none; export both from one model"),
        "states": (renamed(about, "states", tensor="state_other"), "must have states state_valid[6], state_embed_conv0_past["),
        "graph": (
            {**about, "graph_sha256": "0" * 64},
            f"must have the weights of graph {about['graph_sha256'][:12]} {both} 000000000000; export both from one model",
        ),
        "codes": (
            renamed(about, "states", dtype="uint8_t"),
            "must keep state_valid as float32, got codes; run the model file without it",
        ),
    }
    for text, sentence in wanted.values():
        library = fake(tmp_path, text)
        line = said(drive("steps", f"{model(project)}+{library}", features, "running", ok=False))
        assert line.startswith(f"engine library {library}: {sentence}"), line


def test_no_library_no_function_no_build(project: Path, build: Path, engine: Path, tmp_path: Path) -> None:
    def refused(library: object, *more: object) -> str:
        sound = project / "testdata" / "clip.wav"
        return said(run(build / "edgetk_listen", "--engine-library", library, *more, sound, ok=False))

    absent = refused(tmp_path / "absent.so")
    assert absent.startswith(
        f"engine library {tmp_path}/absent.so: must be a library of generated C for this machine, got: {tmp_path}/absent.so: "
    )
    assert absent.endswith("; build it from edgetk export --c")
    require("cc")
    (tmp_path / "empty.c").write_text("int nothing;\n")
    run("cc", "-shared", "-fPIC", tmp_path / "empty.c", "-o", tmp_path / "empty.so")
    assert refused(tmp_path / "empty.so") == (
        f"engine library {tmp_path}/empty.so: must export edgetk_c_about, got no such function; build it from edgetk export --c"
    )
    assert refused(engine, "--isa", "mve") == (
        f"engine library {engine}: must have a build for mve that runs here, got none; leave it out"
    )


def test_a_model_file_is_read_without_a_runtime(project: Path, build: Path, engine: Path, tmp_path: Path) -> None:
    content, path = model(project).read_bytes(), tmp_path / "model.onnx"
    check = (build / "edgetk_check", "steps", path, project / "testdata", engine)
    nowhere = {"EDGETK_ORT_LIBRARY": str(tmp_path / "no.so")}
    path.write_bytes(content)
    assert ": equal" in run(*check, env=nowhere).stdout
    for broken in (b"no ONNX file", content[: len(content) // 2], b"\x07" + content, b"\xff" * 30):
        path.write_bytes(broken)
        line = said(run(*check, env=nowhere, ok=False))
        assert line == f"edgetk_check: model {path}: must be an ONNX file, got other bytes; export it again"
