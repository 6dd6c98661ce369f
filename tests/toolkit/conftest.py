"""Fixtures: fake plug-ins installed the way an outsider's package is, and lowering without torch's exporter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fake_plugins
import pytest
import quick

ENTRY_POINTS = """
[edgetk.tasks]
tiny = edgetk.testing:TASK
[edgetk.passes]
shrink = fake_plugins:Shrink
nudge = fake_plugins:Nudge
rescale = fake_plugins:Rescale
spoil = fake_plugins:Spoil
liar = fake_plugins:Liar
break = fake_plugins:Break
strip = fake_plugins:Strip
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny task and the fake passes, found through entry points."""
    info = tmp_path / "site" / "edgetk_fakes-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgetk-fakes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(info.parent))
    fake_plugins.calls.clear()
    fake_plugins.interrupts.clear()
    yield
    fake_plugins.interrupts.clear()


@pytest.fixture
def quick_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny bundles are lowered by hand-made graphs."""
    monkeypatch.setattr("edgetk.export.lower.lower", quick.lower)
