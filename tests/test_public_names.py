"""What other people's code may lean on stays where it is: names of the core, plug-in groups, the command line."""

import importlib
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import edgetk
from edgetk.core import registry

ROOT = Path(__file__).resolve().parent.parent

PUBLIC = {
    "edgetk.core.artifact": ["Artifact", "Parity"],
    "edgetk.core.bundle": ["Bundle", "Form", "PassRecord"],
    "edgetk.core.contracts": [
        "Data", "Emitted", "Exporter", "Lowered", "Meter", "Pass", "PassResult", "Predictor", "Split", "Task",
    ],
    "edgetk.core.errors": [
        "EdgetkError", "GoalMissed", "InputError", "MissingExtra", "ParityError", "PostconditionError", "PreconditionError",
        "RecipeError", "UnknownName", "UsageError",
    ],
    "edgetk.core.figures": ["Figure", "Measured", "Missing", "Predicted", "Score", "Validation", "validate"],
    "edgetk.core.signature": ["Signature", "StateSpec", "TensorSpec"],
    "edgetk.core.target": ["Stack", "Target"],
    "edgetk.core.workload": ["Op", "Workload"],
    "edgetk.toolkit.recipe": ["Recipe", "read", "names"],
    "edgetk.toolkit.result": ["RunResult", "PassRow", "SCHEMA_VERSION"],
}  # fmt: skip


@pytest.mark.parametrize("module", PUBLIC)
def test_names_are_there_and_documented(module):
    loaded = importlib.import_module(module)
    for name in PUBLIC[module]:
        thing = getattr(loaded, name)
        assert name.isupper() or name == "Figure" or thing.__doc__, f"{module}.{name} has no docstring"


def test_plug_in_groups_keep_their_names():
    assert {kind: rules.attribute for kind, rules in registry.KINDS.items()} == {
        "model": "build", "task": "TASK", "pass": "PASS", "exporter": "EXPORTER", "meter": "METER",
    }  # fmt: skip


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["project"]["scripts"] == {"edgetk": "edgetk.toolkit.cli:main"}
    assert edgetk.__version__.count(".") == 2


def test_extras_are_those_that_errors_name():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"parquet", "view", "all", "dev"} <= set(extras)


def test_constraints_pin_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if not line.startswith("#")}
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {w.split(">=")[0].split("[")[0].lower() for w in wanted} - {"edgetk"}
    assert names <= pinned
