"""What the machine does to a run: no place to write, a missing package, Ctrl-C, a full disk; it goes on with --resume."""

from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from said import sentence, sound, tone

from edgetk.tasks.speech.splits import split_of

GO_ON = "what is finished is kept, the same command with --resume goes on from there"


@pytest.fixture
def words(here: Path) -> Path:
    """A folder of two words to train on, with speakers of every split."""
    speakers = [f"speaker{i}" for i in range(200)]
    chosen = [s for split in ("train", "validation", "test") for s in [s for s in speakers if split_of(s) == split][:4]]
    for number, word in enumerate(("high", "low")):
        (here / "words" / word).mkdir(parents=True)
        for speaker in chosen:
            sound(here / "words" / word / f"{speaker}_nohash_0.wav", tone()[:: number + 1])
    return here / "words"


def training(words: Path, output: str) -> tuple[object, ...]:
    return ("train", "-m", "ds-cnn", "--data", words, "--epochs", 2, "--batch", 4, "--augment", "none", "--device", "cpu",
            "--snapshot-every", 1, "-o", output)  # fmt: skip


def test_outputs_that_cannot_be_written(edgetk, words, here):
    (here / "file").write_text("x")
    for command in (
        ("compress", "-m", "ds-cnn", "--recipe", "export", "-o", "file/runs"),
        training(words, "file/a.safetensors"),
    ):
        done = edgetk(*command)
        assert "must be writable, got: Not a directory; choose another folder" in sentence(done)
        assert done.exit_code == 1
    assert (here / "file").read_text() == "x"


def test_a_missing_extra(edgetk, here, monkeypatch):
    (here / "test.parquet").write_bytes(b"PAR1")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    done = edgetk("evaluate", "ds-cnn", "--data", ".")
    assert sentence(done) == (
        "speech-commands: needs the package pyarrow, which is not installed; run: pip install 'edgetk[parquet]'"
    )
    assert done.exit_code == 4


def once(error: BaseException, real, when=lambda *a: True):
    """`real`, except that the first call for which `when` holds raises `error`."""
    left = [error]

    def call(*arguments, **options):
        if left and when(*arguments):
            raise left.pop()
        return real(*arguments, **options)

    return call


@pytest.fixture
def lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model is always the same: torch's exporter, which takes a second or two, does it once."""
    from edgetk.export import lower as lowering

    def lower(bundle, target, forms=None):
        key = (bundle.name, target.name, tuple(forms or ()))
        if key not in LOWERED:
            LOWERED[key] = real(bundle, target, forms)
        return LOWERED[key]

    real = lowering.lower
    monkeypatch.setattr(lowering, "lower", lower)


LOWERED: dict[tuple[object, ...], object] = {}
COMPRESS = ("compress", "-m", "edgetk.testing:tiny_bundle", "--recipe", "export", "-t", "raspberry-pi-4", "-o", "runs")


@pytest.mark.parametrize("place", ["source.open_model", "steps.begin", "runner.evaluate", "deliver.export", "html.render"])
def test_ctrl_c_in_compress_and_on_with_resume(edgetk, tiny_task, lowered_once, here, monkeypatch, place):
    module, _, name = place.partition(".")
    holder = importlib.import_module(f"edgetk.toolkit.{module}")
    monkeypatch.setattr(holder, name, once(KeyboardInterrupt(), getattr(holder, name)))
    done = edgetk(*COMPRESS)
    assert sentence(done) == f"edgetk compress: interrupted; {GO_ON}"
    assert done.exit_code == 130
    done = edgetk(*COMPRESS, "--resume", "-q")
    assert (done.exit_code, done.stderr) == (0, "")
    (run,) = (here / "runs").iterdir()
    assert {"model.onnx", "model.stream.onnx", "report.json", "report.html"} <= {p.name for p in run.iterdir()}


def test_ctrl_c_in_train_and_on_with_resume(edgetk, words, monkeypatch):
    whole = edgetk(*training(words, "whole.safetensors"))
    assert whole.exit_code == 0, whole.stderr
    for where, name in (("edgetk.toolkit.snapshot", "save"), ("edgetk.toolkit.train", "evaluate")):
        module = importlib.import_module(where)
        monkeypatch.setattr(module, name, once(KeyboardInterrupt(), getattr(module, name)))
        done = edgetk(*training(words, f"{name}.safetensors"))
        assert sentence(done) == f"edgetk train: interrupted; {GO_ON}"
        assert done.exit_code == 130
        done = edgetk(*training(words, f"{name}.safetensors"), "--resume")
        assert done.exit_code == 0, done.stderr
        assert Path(f"{name}.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


@pytest.mark.parametrize("command", [("evaluate", "ds-cnn"), ("inspect", "ds-cnn")], ids=lambda c: c[0])
def test_ctrl_c_elsewhere_promises_nothing(edgetk, monkeypatch, command):
    from edgetk.toolkit import source

    monkeypatch.setattr(source, "open_model", once(KeyboardInterrupt(), source.open_model))
    done = edgetk(*command)
    assert sentence(done) == f"edgetk {command[0]}: interrupted"
    assert done.exit_code == 130


@pytest.mark.parametrize("name", ["recipe.toml", "state.json", "model.onnx", "report.json", "report.html"])
def test_a_full_disk_in_compress_and_on_with_resume(edgetk, tiny_task, lowered_once, here, monkeypatch, name):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "replace", once(full, os.replace, lambda source, target: str(target).endswith(f"/{name}")))
    done = edgetk(*COMPRESS)
    assert done.exit_code == 1
    assert f"/{name} must fit on the disk, got: No space left on device; free some space and continue with --resume" in (
        sentence(done)
    )
    (run,) = (here / "runs").iterdir()
    assert not (run / name).exists()
    assert not list(run.rglob(".edgetk-tmp-*"))
    done = edgetk(*COMPRESS, "--resume", "-q")
    assert (done.exit_code, done.stderr) == (0, "")
    assert (run / name).is_file()


def test_a_full_disk_in_train_and_on_with_resume(edgetk, words, here, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "replace", once(full, os.replace, lambda source, target: target == Path("a.safetensors")))
    done = edgetk(*training(words, "a.safetensors"))
    assert "a.safetensors must fit on the disk, got: No space left on device; free some space" in sentence(done)
    assert done.exit_code == 1
    assert not (here / "a.safetensors").exists()
    assert edgetk(*training(words, "a.safetensors"), "--resume").exit_code == 0
    assert (here / "a.safetensors").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is not there")
def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgetk", "list", "--names"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.stderr == "edgetk list: No space left on device; check the path, its permissions and the free space\n"
    assert done.returncode == 1
