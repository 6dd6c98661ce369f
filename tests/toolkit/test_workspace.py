"""The run folder: whole files or none, old ones kept, one run at a time, nothing outside, no litter."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from edgetk.core.errors import EdgetkError, InputError, UsageError
from edgetk.toolkit.workspace import Workspace

HASH = "0123456789abcdef" * 4


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def test_the_folder_is_named_by_model_target_and_hash(tmp_path: Path) -> None:
    made = Workspace.open(tmp_path / "runs", "my/../model", "jetson", HASH)
    assert made.folder == tmp_path / "runs" / "my-..-model-jetson-0123456789ab"
    assert made.folder.is_dir()
    assert Workspace.open(tmp_path / "runs", "../..", "/", HASH).folder.parent == tmp_path / "runs"


def test_write_gives_the_hash_and_reads_back(tmp_path: Path) -> None:
    made = Workspace.at(tmp_path)
    assert made.write("a/b.bin", b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert made.read("a/b.bin") == b"abc"
    made.write_json("c.json", {"x": [1, "µ"]})
    assert made.read_json("c.json") == {"x": [1, "µ"]}
    assert made.checkpoint(3, "pru/ne.safetensors", b"w") == "checkpoints/03-ne.safetensors"
    assert _files(tmp_path) == ["a/b.bin", "c.json", "checkpoints/03-ne.safetensors"]
    made.clear("a")
    assert not made.has("a/b.bin")


def test_a_script_can_be_executed(tmp_path: Path) -> None:
    made = Workspace.at(tmp_path)
    made.write_text("run.sh", "#!/bin/sh\n")
    made.write_text("read.me", "text\n")
    assert os.access(tmp_path / "run.sh", os.X_OK)
    assert (tmp_path / "read.me").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "", ".", "link/x"])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    made = Workspace.at(folder)
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"workspace: a file name must stay inside .*, got .*; use a relative name"):
        made.write(name, b"x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    made = Workspace.at(tmp_path)
    made.write("report.json", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, place, full)
    with pytest.raises(EdgetkError, match=r"report\.json must fit on the disk, got: No space left.*--resume") as caught:
        made.write("report.json", b"new")
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert made.read("report.json") == b"old"
    assert _files(tmp_path) == ["report.json"]


def test_no_permission_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/runs.* must be writable, got: Not a directory; choose another folder"):
        Workspace.open(tmp_path / "file" / "runs", "m", "t", HASH)
    made = Workspace.at(tmp_path / "run")

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(InputError, match=r"x must be writable, got: Permission denied; choose another folder"):
        made.write("x", b"")
    assert _files(tmp_path / "run") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"must be writable"):
        Workspace.open(tmp_path, "m", "t", HASH)


def test_ctrl_c_while_writing_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Workspace.at(tmp_path)
    made.write("a", b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.write("a", b"new")
    assert made.read("a") == b"old"
    assert _files(tmp_path) == ["a"]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    made = Workspace.at(tmp_path)
    with (
        made.locked(),
        pytest.raises(UsageError, match=rf"one run at a time, got a second one \(the first is process {os.getpid()}\)"),
        Workspace.at(tmp_path).locked(),
    ):
        pass
    with made.locked():  # given back
        pass


def test_the_lock_sweeps_what_a_killed_run_left(tmp_path: Path) -> None:
    made = Workspace.at(tmp_path)
    made.write("checkpoints/01-a.onnx", b"x")
    (tmp_path / "checkpoints" / ".edgetk-tmp-1").write_bytes(b"half")
    made.write("scratch/clip.onnx", b"x")
    with made.locked():
        assert _files(tmp_path) == ["checkpoints/01-a.onnx"]


def test_damaged_and_impossible_json(tmp_path: Path) -> None:
    made = Workspace.at(tmp_path)
    made.write("a.json", b'{"x": ')
    with pytest.raises(InputError, match=r"a\.json must be JSON, got: .*; run again without --resume"):
        made.read_json("a.json")
    with pytest.raises(InputError, match=r"b\.json must be readable, got: No such file"):
        made.read_json("b.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        made.write_json("c.json", float("nan"))
    assert not made.has("c.json")
