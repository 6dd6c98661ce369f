"""Every recipe that edgetk ships names things that exist, and survives being printed."""

from __future__ import annotations

import pytest

from edgetk.targets import board
from edgetk.toolkit import recipe


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe(name: str) -> None:
    made = recipe.read(name).resolved()
    assert made.name == name
    assert made.description
    assert recipe.parse(made.to_toml(), name) == made
    for target in made.targets:
        board.load(target)
