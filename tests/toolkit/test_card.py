"""The model card's counts."""

from __future__ import annotations

import pytest

from edgetk.core.errors import EdgetkError
from edgetk.toolkit.card import macs
from edgetk.toolkit.source import open_model


def test_macs_are_counted_or_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_model("ds-cnn")
    found = macs(bundle)
    assert found["per_frame"] == found["clip"] / 128

    def refuse(*_: object) -> None:
        raise EdgetkError("export: cannot")

    monkeypatch.setattr("edgetk.export.lower.lower", refuse)
    assert macs(bundle) == {"missing": "export: cannot"}
