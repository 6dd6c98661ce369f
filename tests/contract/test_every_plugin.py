"""Every plug-in that edgetk ships is held to its contract the moment its file exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import contract_models
import pytest

from edgetk import testing
from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError
from edgetk.targets import board
from edgetk.toolkit import checkpoint

BUNDLES: tuple[Callable[[], Bundle], ...] = (
    cache(contract_models.lmuformer),
    cache(testing.tiny_bundle),
    cache(contract_models.graph),
    cache(contract_models.transformer),
)
TARGETS = board.names()
#: what makes passes do their work on models this small and untrained
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "prune": {"max_drop": 1.0},
    "prune-blocks": {"goal": "size", "max_loss": 0.2, "max_drop": 0.0, "neurons": 4, "device": "cpu"},
    "sparsify": {"min_weights": 64},
    "factorize": {"max_drop": 1.0, "min_weights": 512},
    "finetune": {"epochs": 2, "batch": 16, "augment": "none", "device": "cpu"},
    "binarize": {"weights": ("mlp",), "epochs": 1, "batch": 16, "calibration": 4, "augment": "none", "device": "cpu"},
    "quantize": {"max_drop": 1.0, "min_weights": 64},
    "tabulate": {"min_weights": 64, "layer_epochs": 1, "epochs": 1, "batch": 16, "calibration": 24, "device": "cpu"},
    "refactorize": {"epochs": 1, "batch": 16, "device": "cpu"},
}
#: passes that work on what another one made
AFTER: Mapping[str, Callable[[], Bundle]] = {"refactorize": contract_models.factorized}

#: data for tasks that embed none
FOLDERS: Mapping[str, Callable[[Path], Path]] = {
    "cifar10": contract_models.binary_pictures,
    **dict.fromkeys(("imdb-bytes", "imdb-bytes-lm", "imdb-tokens"), contract_models.reviews),
    **{name: partial(contract_models.texts, name=name) for name in ("cola", "mrpc", "rte", "sst2")},
}


#: shorter inputs for variants of transformers that differ from the family's first one in sizes alone; that one is whole
SHORTER: Mapping[str, Mapping[str, Any]] = {"wide": {"length": 64}, "axformer": {"length": 32}, "dsformer": {"length": 32}}


def _variants() -> list[tuple[str, str]]:
    return [
        (family, variant)
        for family in registry.names("model")
        for variant in getattr(registry.load_module("model", family), "VARIANTS", {"base": None})
    ]


@pytest.mark.parametrize("kind", registry.KINDS)
def test_nothing_is_broken(kind: str) -> None:
    assert {e.name: e.problem() for e in registry.entries(kind).values() if e.problem()} == {}


@pytest.mark.parametrize(("family", "variant"), _variants())
def test_every_model(family: str, variant: str) -> None:
    whole = variant == next(v for f, v in _variants() if f == family)
    settings = {} if whole else SHORTER.get(family, {})
    testing.check_model(partial(registry.load("model", family), **settings), [variant])


@pytest.mark.parametrize("name", registry.names("pass"))
def test_every_pass(name: str) -> None:
    made = registry.load("pass", name)(**SETTINGS.get(name, {}))
    refusals = []
    for bundle in (AFTER[name],) if name in AFTER else BUNDLES:
        candidate = replace(bundle(), target=board.load("host"))
        if ("torch" if candidate.is_torch else "onnx") not in made.accepts:
            continue
        try:
            made.check(candidate)
        except PreconditionError as error:
            refusals.append(str(error))
            continue
        after = testing.check_pass(made, candidate, name=name)
        assert checkpoint.save_model(after) != checkpoint.save_model(candidate), f"{name} changed nothing"
        return
    pytest.fail(f"{name} refuses every model it could be tried on: {refusals}")


@pytest.mark.parametrize("name", registry.names("task"))
def test_every_task(name: str, tmp_path: Path) -> None:
    task = registry.load("task", name)
    testing.check_task(task, FOLDERS[name](tmp_path) if name in FOLDERS else None)


@pytest.mark.parametrize("name", registry.names("exporter"))
def test_every_exporter(name: str) -> None:
    exporter = registry.load("exporter", name)
    readers = [target for target in ("host", *board.names()) if name in board.load(target).stack.exports]
    target = readers[0] if readers else "host"
    refusals = []
    for make in (contract_models.lmuformer, contract_models.spiking):
        bundle = make()
        try:
            exporter.check(bundle, board.load(target))
        except PreconditionError as error:
            refusals.append(str(error))
            continue
        testing.check_exporter(exporter, bundle, target)
        return
    pytest.fail(f"{name} refuses every model it could be tried on: {refusals}")


@pytest.mark.parametrize("name", TARGETS)
def test_every_board(name: str) -> None:
    testing.check_board(name)


@pytest.mark.parametrize("name", registry.names("meter"))
def test_every_meter(name: str) -> None:
    meter = registry.load("meter", name)
    reason = meter.available()
    assert meter.name == name
    assert reason is None or reason.strip()
