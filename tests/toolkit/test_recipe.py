"""Recipes: what is read, what is refused with which words, what is printed back, and what makes two runs the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.core.errors import EdgetkError, InputError, RecipeError, UnknownName
from edgetk.toolkit import recipe
from edgetk.toolkit.recipe import Goals, PassStep, Recipe, parse

pytestmark = pytest.mark.usefixtures("plugins")

GOOD = """
schema_version = 1
model = "edgetk.testing:tiny_bundle"
targets = ["raspberry-pi-4"]
seed = 3

[goals]
max_drop = 0

[[passes]]
name = "shrink"
hidden = 6

[[passes]]
name = "rescale"
factor = 4
"""


def test_a_good_recipe_is_read_with_its_defaults() -> None:
    made = parse(GOOD, "mine").resolved()
    assert made.name == "mine"
    assert (made.seed, made.targets, made.exports) == (3, ("raspberry-pi-4",), ("onnx",))
    assert made.goals == Goals(max_drop=0.0)
    assert made.passes == (PassStep("shrink", {"hidden": 6}), PassStep("rescale", {"factor": 4.0}))
    assert isinstance(made.passes[1].settings["factor"], float)
    assert parse(GOOD.replace("hidden = 6\n", ""), "mine").resolved().passes[0].settings == {"hidden": 7}


@pytest.mark.parametrize(
    ("old", "new", "kind", "text"),
    [
        ("seed = 3", "sead = 3", RecipeError, r"recipe mine: a key must be one of the recipe's, got 'sead'; did you mean seed"),
        ("seed = 3", 'seed = "3"', RecipeError, r"recipe mine: seed must be a whole number, got '3'; correct it"),
        ("seed = 3", "seed = true", RecipeError, r"seed must be a whole number, got True"),
        ("seed = 3", "seed = -1", RecipeError, r"recipe mine: seed must be in \[0, 2³²\), got -1; choose another"),
        ('targets = ["raspberry-pi-4"]', "targets = []", RecipeError, r"targets must name at least one, got none"),
        ('targets = ["raspberry-pi-4"]', 'targets = "x"', RecipeError, r"targets must be a list of a text, got 'x'"),
        ("seed = 3", 'guard_split = "test"', RecipeError, r"guard_split and final_split must differ, got 'test' for both"),
        ("max_drop = 0", "max_drop = 2", RecipeError, r"goals: max_drop must be in \[0, 1\], got 2\.0; 0\.01 is one point"),
        (
            "max_drop = 0",
            "max_dorp = 0",
            RecipeError,
            r"goals: a setting must be one it has, got 'max_dorp'; did you mean max_drop",
        ),
        ("max_drop = 0", "max_latency_s = 0", RecipeError, r"goals: max_latency_s must be above 0, got 0\.0; give seconds"),
        ("max_drop = 0", "max_slowdown = 0.5", RecipeError, r"goals: max_slowdown must be at least 1, got 0\.5; 1\.5 allows"),
        ('"shrink"', '"shrinc"', UnknownName, r"recipe mine: pass 'shrinc': no such pass; did you mean shrink"),
        ('name = "shrink"', "", RecipeError, r"every \[\[passes\]\] must have a name, got None; add name"),
        ("hidden = 6", "hiden = 6", RecipeError, r"shrink: a setting must be one it has, got 'hiden'; did you mean hidden"),
        ("hidden = 6", "hidden = 6.5", RecipeError, r"shrink: hidden must be a whole number, got 6\.5; correct it"),
        (
            "hidden = 6",
            'optional = "yes"',
            RecipeError,
            r"recipe mine: shrink: optional must be true or false, got 'yes'; correct",
        ),
        ("hidden = 6", "hidden = 0", RecipeError, r"shrink: hidden must be in \[1, 4096\], got 0; choose fewer or more"),
        ("schema_version = 1", "", RecipeError, r"schema_version must be 1, got None; add schema_version = 1"),
        ("schema_version = 1", "schema_version = 2", RecipeError, r"schema_version must be 1, got 2"),
        ("seed = 3", "seed = ", RecipeError, r"recipe mine: the file must be TOML, got: Invalid value.*correct that line"),
        ("seed = 3", 'exports = ["onx"]', UnknownName, r"exporter 'onx': no such exporter; did you mean onnx"),
        (
            '"raspberry-pi-4"',
            '"raspberry-pi-6"',
            UnknownName,
            r"target 'raspberry-pi-6': must be the name of a board .*did you mean",
        ),
        ("seed = 3", 'task = "tinny"', UnknownName, r"task 'tinny': no such task; did you mean tiny"),
    ],
)
def test_what_is_refused_and_how(old: str, new: str, kind: type[EdgetkError], text: str) -> None:
    assert old in GOOD
    with pytest.raises(kind, match=text):
        parse(GOOD.replace(old, new, 1), "mine").resolved()


def test_files_and_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert recipe.read(path) == recipe.read(str(path)) == parse(GOOD, "mine")
    with pytest.raises(UnknownName, match=r"recipe 'defualt': no such recipe; did you mean default"):
        recipe.read("defualt")
    with pytest.raises(InputError, match=r"recipe: .*none\.toml must be a readable text file, got: No such file"):
        recipe.read(tmp_path / "none.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"mine\.toml must be a readable text file, got: it is not text"):
        recipe.read(path)
    assert {"default", "export"} <= set(recipe.names())
    assert recipe.read("export").resolved().passes == ()


def test_exports_default_to_what_the_first_target_reads() -> None:
    made = parse(GOOD, "mine")
    assert made.exports == ()
    assert made.with_overrides(target="loihi2").resolved().exports == ("nir",)
    both = parse(GOOD.replace('["raspberry-pi-4"]', '["host", "loihi2"]'), "mine").resolved()
    assert both.exports == ("onnx",)
    assert 'exports = ["onnx"]' in both.to_toml()
    assert parse(GOOD.replace("seed = 3", 'exports = ["onnx"]'), "mine").with_overrides(target="loihi2").resolved().exports == (
        "onnx",
    )
    assert parse(GOOD.replace("seed = 3", "exports = []"), "mine").resolved().exports == ("onnx",)


def test_printing_a_resolved_recipe_gives_it_back() -> None:
    made = parse(GOOD, "mine").with_overrides(max_size_bytes=5000, labels=("a", 'b "c"'), max_latency_s=1e-4).resolved()
    assert parse(made.to_toml(), "other") == made


@settings(max_examples=50, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8")),
    number=st.floats(0, 1, allow_nan=False),
    labels=st.lists(st.text(st.characters(codec="utf-8")), max_size=3),
)
def test_any_text_and_number_survive_printing(text: str, number: float, labels: list[str]) -> None:
    made = Recipe("x", model=text, description=text, labels=tuple(labels), goals=Goals(max_drop=number))
    assert parse(made.to_toml(), "x") == made


def test_overrides() -> None:
    made = parse(GOOD, "mine")
    assert made.with_overrides(target=None, seed=None) == made
    assert made.with_overrides(target="jetson", seed=9).targets == ("jetson",)
    assert made.with_overrides(max_drop=0.5).goals.max_drop == 0.5
    assert made.with_overrides(data=Path("/somewhere")).data == "/somewhere"
    with pytest.raises(RecipeError, match=r"recipe mine: a setting must be one it has, got 'seeed'; did you mean seed"):
        made.with_overrides(seeed=1)
    with pytest.raises(RecipeError, match=r"goals: max_drop must be in \[0, 1\], got 7\.0"):
        made.with_overrides(max_drop=7)


def test_aliases_become_boards() -> None:
    assert parse(GOOD, "mine").with_overrides(target="jetson").resolved().targets == ("jetson-orin-nano-8g",)


def test_finetune_goes_before_quantize_once() -> None:
    steps = tuple(PassStep(n) for n in ("prune", "quantize"))
    made = Recipe("x", passes=steps).with_overrides(finetune=True)
    assert [s.name for s in made.passes] == ["prune", "finetune", "quantize"]
    assert made.with_overrides(finetune=True) == made
    assert [s.name for s in Recipe("x", passes=steps[:1]).with_overrides(finetune=True).passes] == ["prune", "finetune"]


def test_identity_is_what_is_done_and_what_it_starts_from() -> None:
    made = parse(GOOD, "mine").resolved()
    same = parse(GOOD, "another name").resolved()
    assert made.sha256() == same.sha256()
    assert made.sha256({"w": "1"}) != made.sha256({"w": "2"}) != made.sha256()
    for change in ({"seed": 4}, {"target": "host"}, {"max_drop": 0.02}, {"data": "x"}):
        assert made.with_overrides(**change).sha256() != made.sha256()


def test_an_optional_pass_is_written_and_read_back_and_another_run() -> None:
    text = 'schema_version = 1\nname = "mine"\n\n[[passes]]\nname = "fold"\n'
    plain, optional = recipe.parse(text, "mine").resolved(), recipe.parse(text + "optional = true\n", "mine").resolved()
    assert (plain.passes[0].optional, optional.passes[0].optional) == (False, True)
    assert "optional" not in plain.to_toml()
    assert recipe.parse(optional.to_toml(), "mine") == optional
    assert plain.sha256() != optional.sha256()
