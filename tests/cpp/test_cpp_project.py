"""The C++ project around the runner: the command that writes it, the ways to ONNX Runtime, native operators, the example."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from cpp_build import Done, configure, library, require, run
from test_runner import model, replays
from typer.testing import CliRunner

from edgetk.core.artifact import Parity
from edgetk.core.signature import Signature, TensorSpec
from edgetk.export import cpp_project, operators, parity
from edgetk.export.operators import SOURCES
from edgetk.tasks.speech.detect import Rule
from edgetk.toolkit import source
from edgetk.toolkit.cli import app
from edgetk.toolkit.tiny import TinyNet, tiny_bundle

Call = Callable[..., Done]
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "cpp_runtime"


def edgetk(*arguments: object) -> object:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="edgetk")


def tiny_clip() -> TinyNet:
    """A model of a user's own, for `test_cpp_project:tiny_clip`: plain whole inputs."""
    net = TinyNet().eval()
    net.forward = net.clip  # type: ignore[method-assign, assignment]
    net.example = tiny_bundle().data.split("test").features[:1]  # type: ignore[union-attr, assignment]
    return net


def test_export_wants_to_be_told_what_to_write() -> None:
    done = edgetk("export", "lmuformer-xs")
    assert done.exit_code == 2
    wanted = "export: must be told what to write, got none of --output, --cpp and --c; name a folder with one"
    assert done.stderr.strip() == wanted


def test_export_writes_proven_files_and_a_project(check: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    name = "test_cpp_project:tiny_clip"
    done = edgetk("export", name, "-o", tmp_path / "files", "--cpp", tmp_path / "cpp", "--json", "-q")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    (file,) = found["files"]
    assert (file["path"], file["form"], Parity.from_json(file["parity"]).passed) == ("model.onnx", "clip", True)
    assert (tmp_path / "files" / "model.onnx").stat().st_size == file["size_bytes"]
    assert found["target"].startswith("host ")
    written = {p.relative_to(tmp_path / "cpp").as_posix() for p in (tmp_path / "cpp").rglob("*") if p.is_file()}
    assert written == set(found["cpp"]["files"])
    assert (tmp_path / "cpp" / "model.txt").read_text() == f"{name}\n"
    assert set(replays(check, tmp_path / "cpp" / "model" / "model.onnx")) == {"outputs.npy"}

    again = edgetk("export", tmp_path / "files" / "model.onnx", "-o", tmp_path / "again", "-q")  # a graph goes in as well
    assert again.exit_code == 0, again.stderr
    assert again.stdout.startswith(f"{tmp_path}/again/model.onnx: clip form, float32, ")
    assert "bytes, equal to the model in memory (n=8" in again.stdout
    project = edgetk("export", tmp_path / "files" / "model.onnx", "--cpp", tmp_path / "third", "-q")
    assert project.stdout.splitlines()[0] == f"{tmp_path}/third: C++ project of {len(written)} files; build and check it:"


def test_sources_of_the_package_are_the_project(project: Path) -> None:
    sources = cpp_project.sources(source.open_model("lmuformer-xs"), "lmuformer-xs")
    assert {name: (project / name).read_bytes() for name in sources} == sources
    assert "| look-ahead | 50 ms |" in sources["README.md"].decode()
    written = {p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()} - {".done"}
    assert {name for name in written if not name.startswith(("model/", "testdata/"))} == set(sources)


def test_the_detector_begins_with_the_settings_of_pythons() -> None:
    rule, header = Rule(), (EXAMPLE / "include" / "edgetk" / "detector.hpp").read_text()
    usage = (EXAMPLE / "main.cpp").read_text()
    for name in ("window", "threshold", "hold", "refractory"):
        value = getattr(rule, name)
        assert re.search(rf"(int|double) {name} = {value:g};", header), name
        assert re.search(rf"--{name} .*\({value:g}\)", usage), name


def test_the_example_is_what_edgetk_writes_for_lmuformer() -> None:
    sources = cpp_project.sources(source.open_model("lmuformer"), "lmuformer")
    tracked = subprocess.run(["git", "ls-files", "-z", EXAMPLE], capture_output=True, text=True, cwd=ROOT, check=False)
    if tracked.returncode == 0 and tracked.stdout:
        names = {Path(p).relative_to("examples/cpp_runtime").as_posix() for p in tracked.stdout.split("\0") if p}
        assert names == set(sources)
    assert {name: (EXAMPLE / name).read_bytes() for name in sources} == sources, (
        "run: edgetk export lmuformer --cpp examples/cpp_runtime"
    )


def test_the_example_makes_its_model_itself(project: Path, tmp_path: Path) -> None:
    """CMake calls edgetk where there is no model yet; here a stand-in that copies one which is at hand."""
    require("cmake", "c++")
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("build", "model", "testdata"))
    program = tmp_path / "bin" / "edgetk"
    program.parent.mkdir()
    code = f"import shutil, sys; [shutil.copytree('{project}/' + n, sys.argv[4] + '/' + n) for n in ('model', 'testdata')]"
    program.write_text(f'#!/bin/sh\ntest "$1 $2 $3" = "export lmuformer --cpp" && exec {sys.executable} -c "{code}" "$@"\n')
    program.chmod(0o755)
    done = configure(tmp_path / "example", tmp_path / "build", f"-DEDGETK={program}")
    assert "-- The model: edgetk export lmuformer --cpp (once)" in done.stdout
    again = configure(tmp_path / "example", tmp_path / "build")
    assert "The model:" not in again.stdout
    (tmp_path / "example" / "model" / "model.stream.onnx").unlink()
    refused = configure(
        tmp_path / "example", tmp_path / "build", "-DEDGETK=EDGETK-NOTFOUND", env={"PATH": "/usr/bin:/bin"}, ok=False
    )
    assert refused.returncode != 0
    wanted = "the model: must be in model/, got none; install edgetk and run: edgetk export lmuformer --cpp"
    assert wanted in " ".join(refused.stderr.split())


def test_a_folder_with_two_models_is_refused(project: Path, tmp_path: Path) -> None:
    require("cmake", "c++")
    shutil.copytree(project, tmp_path / "two", ignore=shutil.ignore_patterns("build"))
    (tmp_path / "two" / "model" / "model.onnx").write_bytes(b"")
    refused = configure(tmp_path / "two", tmp_path / "build", f"-DEDGETK_ORT_LIBRARY={library()}", ok=False)
    said = "".join(refused.stderr.split())
    folder = f"{tmp_path}/two/model"
    wanted = (
        f"the model: must be the only graph in model/, got {folder}/model.onnx and {folder}/model.stream.onnx; delete the one"
    )
    assert "".join(wanted.split()) in said


def archive(folder: Path) -> Path:
    """ONNX Runtime as a release archive has it, without headers: the library of the Python package in lib/."""
    (folder / "lib").mkdir(parents=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library())
    return folder


def test_a_release_folder_is_linked(project: Path, tmp_path: Path) -> None:
    require("cmake", "c++")
    root = archive(tmp_path / "ort")
    done = configure(project, tmp_path / "build", env={"ONNXRUNTIME_ROOT": str(root)})
    assert f"-- ONNX Runtime: {root}/lib/libonnxruntime.so (ONNXRUNTIME_ROOT), linked" in done.stdout
    run("cmake", "--build", tmp_path / "build", "--target", "edgetk_check")
    check = tmp_path / "build" / "edgetk_check"
    assert ": equal" in run(check, "steps", model(project), project / "testdata").stdout
    if shutil.which("readelf"):
        assert "libonnxruntime.so.1" in run("readelf", "-d", check).stdout
    done = configure(project, tmp_path / "other", f"-DONNXRUNTIME_ROOT={tmp_path}", ok=False)
    assert "ONNXRUNTIME_ROOT: must hold lib/libonnxruntime.so, got" in done.stderr


def package(folder: Path, includes: Path) -> Path:
    """A CMake package as distributions install it."""
    folder.mkdir()
    (folder / "onnxruntimeConfig.cmake").write_text(
        "add_library(onnxruntime::onnxruntime SHARED IMPORTED)\n"
        f'set_target_properties(onnxruntime::onnxruntime PROPERTIES IMPORTED_LOCATION "{library()}" '
        f'INTERFACE_INCLUDE_DIRECTORIES "{includes}")\n'
    )
    return folder


def test_a_cmake_package_is_linked_unless_it_is_broken(project: Path, tmp_path: Path) -> None:
    require("cmake", "c++")
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "onnxruntime_c_api.h").touch()
    good = package(tmp_path / "good", tmp_path / "include")
    done = configure(project, tmp_path / "a", f"-Donnxruntime_DIR={good}")
    assert f"-- ONNX Runtime: its header in {tmp_path}/include" in done.stdout
    assert f"-- ONNX Runtime: the CMake package in {good}, linked" in done.stdout
    bad = package(tmp_path / "bad", tmp_path / "nowhere")
    done = configure(project, tmp_path / "b", f"-Donnxruntime_DIR={bad}")
    assert f"names {tmp_path}/nowhere, which is not there; passed over" in done.stdout
    assert f"-- ONNX Runtime: {library()} (the Python package), loaded" in done.stdout
    done = configure(project, tmp_path / "c", f"-Donnxruntime_DIR={good}", "-DEDGETK_ORT_CONFIG=OFF")
    assert "CMake package" not in done.stdout


def test_a_library_by_name_or_none_at_all(project: Path, tmp_path: Path) -> None:
    require("cmake", "c++")
    done = configure(project, tmp_path / "a", f"-DEDGETK_ORT_LIBRARY={library()}")
    assert f"-- ONNX Runtime: {library()} (EDGETK_ORT_LIBRARY), loaded when the program starts" in done.stdout
    done = configure(project, tmp_path / "b", f"-DEDGETK_ORT_LIBRARY={tmp_path}/no.so", ok=False)
    assert f"EDGETK_ORT_LIBRARY: must be a library file, got {tmp_path}/no.so" in " ".join(done.stderr.split())
    done = configure(project, tmp_path / "c", "-DEDGETK_ORT_CONFIG=OFF", "-DCMAKE_DISABLE_FIND_PACKAGE_Python3=ON")
    assert "-- ONNX Runtime: not found; name its library with -DEDGETK_ORT_LIBRARY=FILE, or " in done.stdout


def test_the_declarations_are_those_of_the_runtimes_header(tmp_path: Path) -> None:
    root = Path(os.environ.get("ONNXRUNTIME_ROOT", "/usr")) / "include"
    header = next((p for p in (root, root / "onnxruntime") if (p / "onnxruntime_c_api.h").is_file()), None)
    if header is None:
        pytest.skip("needs onnxruntime_c_api.h in ONNXRUNTIME_ROOT, or the package libonnxruntime-dev")
    require("c++")
    text = (cpp_project.SOURCES / "include" / "edgetk" / "ort_api.hpp").read_text()
    table = text.partition("struct OrtApi {")[2].partition("};")[0]
    slots = re.findall(r"\(\*(\w+)\)\(", table)
    assert len(slots) == 21
    enums = re.findall(r"(\w+) = \d+", text.partition("struct OrtApi {")[0].partition("enum ")[2])
    assert "ORT_ENABLE_ALL" in enums
    lines = [f'std::printf("{slot} %zu\\n", offsetof(OrtApi, {slot}) / sizeof(void (*)()));' for slot in slots]
    lines += [f'std::printf("{name} %d\\n", int({name}));' for name in enums]
    includes = '#include <cstdio>\n#include "edgetk/ort_api.hpp"\n'
    (tmp_path / "a.cpp").write_text(f"{includes}int main() {{\n" + "\n".join(lines) + "\n}\n")
    printed = []
    for options in (("-DEDGETK_ORT_OWN_HEADER",), ("-I", header)):
        run(
            "c++", "-std=c++17", "-w", "-I", cpp_project.SOURCES / "include", *options, tmp_path / "a.cpp", "-o", tmp_path / "a"
        )
        printed.append(run(tmp_path / "a").stdout)
    assert printed[0] == printed[1]


def test_native_operators_run_in_the_runner(check: Call, tmp_path: Path) -> None:
    require("make", "cc")
    subprocess.run(["make", "-s", "-C", SOURCES, f"OUT={tmp_path}"], check=True)
    native = tmp_path / operators.FILE
    text = """
    <ir_version: 8, opset_import: ["" : 17, "edgetk" : 1]>
    main (float[1, 2, 9, 16] queries) => (float[1, 2, 9, 16] attended) {
        attended = edgetk.BinaryLinearAttention <numerator = "sum"> (queries, queries, queries)
    }
    """
    from edgetk.export import functions

    content = functions.attach(onnx.parser.parse_model(text)).SerializeToString()
    shape = (1, 2, 9, 16)
    signature = Signature((TensorSpec("queries", shape),), (TensorSpec("attended", shape),))
    codes = np.random.default_rng(0).choice([-1.0, 1.0], (2, *shape)).astype(np.float32)
    folder, path = tmp_path / "testdata", tmp_path / "model.onnx"
    folder.mkdir()
    path.write_bytes(content)
    (folder / "bounds.json").write_text('{"scores": 0}')
    (folder / "inputs.npy").write_bytes(cpp_project.npy(codes.reshape(2, -1)))
    for library_file, env in ((None, {}), (native, {"EDGETK_OPS": str(native)})):
        call = parity.runner(content, signature, operators=library_file)
        outputs = np.stack([call(x)[0].reshape(-1) for x in codes])
        (folder / "outputs.npy").write_bytes(cpp_project.npy(outputs))
        assert "largest difference 0," in check("whole", path, folder, **env).stdout
        if library_file is None:  # the kernel rounds otherwise than the body, so this tells that it is the kernel that ran
            assert "NOT EQUAL" in check("whole", path, folder, ok=False, EDGETK_OPS=str(native)).stdout


def test_a_chirp_stands_in_where_there_is_no_sound(tmp_path: Path) -> None:
    bundle = replace(source.open_model("lmuformer-xs"), data=None)
    samples = cpp_project._clip(bundle)
    assert (samples.dtype, samples.shape) == (np.int16, (16000,))
    assert 8000 < np.abs(samples.astype(int)).max() < 10000
