"""The recipe in docs/recipes.md is one that the reader accepts, and its table names every key."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from edgetk.toolkit.recipe import Goals, Recipe, parse

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_example_is_accepted() -> None:
    text = re.search(r"```toml\n(.*?)```", PAGE, re.S)
    assert text is not None
    head = text[1].split("[[passes]]")[0]
    made = parse(head, "page")
    assert (made.name, made.targets, made.goals.max_size_bytes) == ("kws-small", ("raspberry-pi-4",), 500_000)
    assert [step["name"] for step in tomllib.loads(text[1])["passes"]] == ["fold", "quantize"]


def test_every_key_is_described() -> None:
    for kind in (Recipe, Goals):
        for field in fields(kind):
            assert f"`{field.name}`" in PAGE or f"`[{field.name}]`" in PAGE or f"`[[{field.name}]]`" in PAGE, field.name
