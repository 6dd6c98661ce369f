"""The operator library and each instruction set of this processor, for the tests of its operators."""

from __future__ import annotations

from pathlib import Path

import pytest
from native_build import ISAS, built, require


@pytest.fixture(scope="module")
def library() -> Path:
    """Built once for a process."""
    return built()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """One after the other; a test is skipped where the processor lacks it."""
    return require(request.param)
