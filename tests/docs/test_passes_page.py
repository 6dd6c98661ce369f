"""The page on passes keeps in step with the passes: every one, every setting with its default, every refusal it quotes."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from edgetk.core import registry
from edgetk.models.layers import elements
from edgetk.passes import _statistics
from edgetk.tasks.training import tuning
from edgetk.toolkit import recipe

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "passes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M))
BUILT_IN = [name for name, entry in registry.entries("pass").items() if entry.module.startswith("edgetk.")]


def default(setting: Field[Any]) -> str:
    """As TOML writes it."""
    value = setting.default if setting.default is not MISSING else setting.default_factory()  # type: ignore[misc]
    return {dict: lambda: "{}", str: lambda: f'"{value}"', tuple: lambda: str(list(value)).replace("'", '"')}.get(
        type(value), lambda: repr(value)
    )()


def test_every_pass_is_described() -> None:
    assert sorted(SECTIONS) == sorted(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_settings_and_defaults(name: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| \S.* \|$", SECTIONS[name], re.M)
    assert rows == [(setting.name, default(setting)) for setting in fields(registry.load("pass", name))]


@pytest.mark.parametrize("name", BUILT_IN)
def test_refusals_are_those_of_the_code(name: str) -> None:
    source = (
        inspect.getsource(registry.load_module("pass", name)) + inspect.getsource(_statistics) + inspect.getsource(elements)
    )
    source += inspect.getsource(tuning).replace("{who}", name)
    source = re.sub(r'"\n\s+f?"', "", source)  # texts over several lines
    refusals = SECTIONS[name].partition("Says no:")[2].partition("\n- ")[0]
    texts = [text for text in re.findall(r"`([^`]+)`", refusals) if " " in text]
    assert texts
    for text in texts:
        assert text in source, text


@pytest.mark.parametrize("name", BUILT_IN)
def test_sources_are_those_of_the_code(name: str) -> None:
    code = inspect.getsource(registry.load_module("pass", name))
    for paper in re.findall(r"arXiv:[\d.]+\d", SECTIONS[name]):
        assert paper in code, paper


def test_the_usual_order_is_that_of_the_default_recipe() -> None:
    steps = [step.name for step in recipe.read("default").with_overrides(finetune=True).passes]
    assert f"The usual order is {', '.join(steps)}." in PAGE
