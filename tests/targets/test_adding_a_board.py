"""docs/adding-a-board.md, followed literally: its file is written, its Python is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from target_graphs import ds_cnn

from edgetk.core.figures import Predicted
from edgetk.targets import board
from edgetk.targets.count import count
from edgetk.targets.predict import predict

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-board.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-board.toml").write_text(block("toml"), encoding="utf-8")
    exec(block("python"), {})
    assert capsys.readouterr().out.strip() == "my-board (power mode run, 120 MHz, stack my runtime 1.0)"
    assert block("python").splitlines()[-1].endswith("# my-board (power mode run, 120 MHz, stack my runtime 1.0)")
    figures = predict(count(ds_cnn()), board.load("./my-board.toml"))
    assert all(isinstance(f, Predicted) for f in figures)
