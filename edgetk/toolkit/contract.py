"""What each kind of plug-in promises, as checks; `edgetk.testing` is the name to import them under."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.contracts import Exporter, Pass, Task
from edgetk.core.errors import EdgetkError, PreconditionError
from edgetk.core.figures import Missing, Predicted
from edgetk.core.target import Target
from edgetk.core.workload import Op, Workload
from edgetk.toolkit import calling, checkpoint, steps


def check_pass(made: Pass, bundle: Bundle, seed: int = 0, name: str = "", target: str = "host") -> Bundle:
    """Hold a pass to its contract on `bundle`, and give the bundle it makes.

    The input stays unchanged; two runs with one seed give the same bytes; the signature holds (or the declared new one);
    lossless means equal outputs; notes, settings and structure survive JSON; `rebuild` gives a fresh body the same weights'
    places; the result still lowers for `target`. PreconditionError passes through: try it on a bundle it accepts.
    """
    who = name or type(made).__name__.lower()
    assert is_dataclass(made), f"{who}: a pass must be a frozen dataclass, got {type(made).__name__}"
    assert made.__dataclass_params__.frozen, f"{who}: a pass must be frozen, got a dataclass that can change"
    for attribute, kind in (("accepts", tuple), ("lossless", bool)):
        assert isinstance(getattr(made, attribute, None), kind), f"{who}: {attribute} must be a {kind.__name__}"
    made.check(bundle)
    before = checkpoint.save_model(bundle)
    results = []
    for _ in range(2):
        private = replace(bundle, body=copy.deepcopy(bundle.body))
        with calling.seeded(seed):
            results.append(made(private))
    assert checkpoint.save_model(bundle) == before, f"{who}: must leave the model it was given a copy of unchanged"
    first, second = results
    structure = first.structure
    for what, data in (("notes", dict(first.notes)), ("structure", structure), ("settings", asdict(made))):
        try:
            json.dumps(data, allow_nan=False, default=dict)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{who}: {what} must be plain data, got: {error}") from error
    record = PassRecord(who, json.loads(json.dumps(asdict(made))), {}, structure)
    changes = {"signature": first.signature or bundle.signature, "clip": first.clip or bundle.clip}
    after, again = (bundle.with_body(r.body, record, **changes) for r in (first, second))
    assert checkpoint.save_model(after) == checkpoint.save_model(again), (
        f"{who}: two runs with seed {seed} must give equal bytes"
    )
    if bundle.is_torch:
        from edgetk.models.layers.exact import settle

        settle(after.module.eval())  # as the runner does
        calling.check_interface(after, who, PostAssertion)
    else:
        calling.check_graph(after, who)
    if made.lossless:
        inputs = bundle.data.calibration(steps.INPUTS) if bundle.data is not None else None
        calling.check_lossless(bundle, after, inputs, who, PostAssertion)
    if bundle.is_torch:
        _check_rebuild(made, who, bundle, after, structure)
    from edgetk.export.lower import lower

    lower(after, _board(target))
    return after


class PostAssertion(EdgetkError, AssertionError):
    """A broken promise, as pytest shows it."""


def _check_rebuild(made: Pass, who: str, bundle: Bundle, after: Bundle, structure: Any) -> None:
    fresh = copy.deepcopy(bundle.body)
    if structure is not None:
        fresh = made.rebuild(fresh, json.loads(json.dumps(structure, default=dict)))
    wanted = {k: tuple(v.shape) for k, v in after.module.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in fresh.state_dict().items()}
    differing = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
    assert not differing, (
        f"{who}: rebuild must give a fresh body the weights' names and shapes of the result, got a difference in "
        f"{', '.join(differing[:3])} (structure {'none' if structure is None else 'given'})"
    )
    fresh.load_state_dict(after.module.state_dict(), strict=True)
    gap, form = calling.difference(after, replace(after, body=fresh.eval()))
    assert gap <= 1e-6, f"{who}: a rebuilt model with the same weights must compute the same, got {gap:.1e} in the {form} form"


def check_model(build: Callable[..., Bundle], variants: Iterable[str], target: str = "host") -> None:
    """Every variant builds, keeps to its signature, streams what its clip form computes, is stored and read, and lowers."""
    from edgetk.export.lower import lower
    from edgetk.export.parity import step_vs_clip

    for variant in variants:
        bundle = build(variant)
        who = f"model {bundle.name}"
        source = bundle.source
        assert {"model", "variant", "config"} <= source.keys(), (
            f"{who}: source must say how to build it again, got {dict(source)}"
        )
        assert not bundle.module.training, f"{who}: build must give a model in evaluation mode"
        calling.check_interface(bundle, who, PostAssertion)
        if bundle.clip is not None and bundle.signature.is_streaming:
            step_vs_clip(bundle, 2)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            path.write_bytes(checkpoint.save_model(bundle))
            loaded = checkpoint.load_model(path)
        assert loaded.signature == bundle.signature, f"{who}: its signature must survive a file"
        gap, form = calling.difference(bundle, loaded)
        assert gap == 0.0, f"{who}: a stored and loaded model must compute the same, got {gap:.1e} in the {form} form"
        lower(bundle, _board(target))


def check_task(task: Task, folder: Path | None = None) -> None:
    """Its embedded data, or that in `folder`, opens; splits are apart, labelled, finite; calibration avoids the test split;
    scores count right.
    """
    import torch

    data = task.open(folder)
    who = f"task {task.name}"
    splits = {}
    for name in ("validation", "test"):
        splits[name] = data.split(name)
    for name, split in splits.items():
        assert len(split.features) == len(split.labels) > 0, f"{who}: {name} must have one label per example"
        assert split.features.dtype == torch.float32, f"{who}: features must be float32, got {split.features.dtype}"
        assert split.labels.dtype == torch.int64, f"{who}: labels must be int64, got {split.labels.dtype}"
        assert bool(split.features.isfinite().all()), f"{who}: features of {name} must be finite"
        assert int(split.labels.min()) >= 0, f"{who}: labels of {name} must be class indices"
        assert int(split.labels.max()) < len(data.labels), f"{who}: labels of {name} must be below {len(data.labels)}"
    test = _rows(splits["test"].features)
    assert not test & _rows(splits["validation"].features), f"{who}: validation and test must not share an example"
    inputs = data.calibration(8)
    assert len(inputs) == 8, f"{who}: calibration(8) must give 8 inputs, got {len(inputs)}"
    assert not test & _rows(inputs), f"{who}: calibration inputs must not come from the test split"
    split = splits["test"]
    official = split.labels if split.official is None else split.labels[split.official]
    table = {hash(x.numpy().tobytes()): y for x, y in zip(split.features, split.labels, strict=True)}

    def perfect(features: Any) -> Any:
        rows = [int(table[hash(x.numpy().tobytes())]) for x in features]
        return torch.nn.functional.one_hot(torch.tensor(rows), len(data.labels)).float()

    score = task.score(perfect, split)
    assert score.correct == score.n, f"{who}: right answers must score 100 %, got {score}"
    assert score.n == len(official), f"{who}: the score must count the official examples, got n={score.n}"
    assert score.split == "test", f"{who}: the score must name its split, got {score.split!r}"


def _rows(features: Any) -> set[bytes]:
    return {x.numpy().tobytes() for x in features}


def check_exporter(exporter: Exporter, bundle: Bundle, target: str = "host") -> None:
    """It exports every form of `bundle`, two times the same bytes, under relative names, proven where it has a proof."""
    from edgetk.export.lower import lower

    board = _board(target)
    exporter.check(bundle, board)
    lowered = lower(bundle, board)
    first, second = (exporter(lowered, bundle, board, {"recipe_sha256": "0" * 64}) for _ in range(2))
    who = f"exporter {exporter.format}"
    assert first, f"{who}: must emit a file, got none"
    assert [(e.name, e.content) for e in first] == [(e.name, e.content) for e in second], (
        f"{who}: must emit the same bytes twice"
    )
    names = [e.name for e in first]
    assert len(set(names)) == len(names), f"{who}: file names must differ, got {names}"
    for emitted in first:
        path = Path(emitted.name)
        assert not path.is_absolute(), f"{who}: names must be relative, got {emitted.name}"
        assert ".." not in path.parts, f"{who}: names must stay in the run folder, got {emitted.name}"
        assert emitted.content, f"{who}: {emitted.name} must not be empty"
        assert emitted.parity is None or emitted.parity.passed, (
            f"{who}: {emitted.name} must compute the same, got {emitted.parity}"
        )


def check_board(path: Path | str) -> None:
    """It loads, every number has a source, it predicts only `Predicted` or `Missing`, and more MACs never take less time."""
    from edgetk.toolkit import cost

    target = _board(str(path))
    who = f"board {target.name}"
    for name in ("clock_hz", "cores", "mem_bytes_per_s", "ram_bytes", "flash_bytes", "power_w", "idle_w"):
        if getattr(target, name) is not None:
            assert target.sources.get(name), f"{who}: {name} must have a source (or the word assumed)"
    values = []
    for factor in (1, 2, 4):
        op = Op("MatMul", "m", 10_000 * factor, 100, 1_000, 1_000)
        figures = cost.predict(Workload((op,), 1_000, 250, 1_000, 0), target)
        assert all(isinstance(f, Predicted | Missing) for f in figures), f"{who}: must predict, got {figures}"
        values += [f.value for f in figures if isinstance(f, Predicted) and f.metric == "latency"]
    assert values == sorted(values), f"{who}: more MACs must not take less time, got {values}"


def _board(name: str) -> Target:
    from edgetk.targets import board

    return board.load(name)


def accepting(made: Pass, bundles: Iterable[Bundle]) -> Bundle | None:
    """The first bundle that a pass can work on."""
    for bundle in bundles:
        kind = "torch" if bundle.is_torch else "onnx"
        if kind in made.accepts:
            try:
                made.check(bundle)
            except PreconditionError:
                continue
            return bundle
    return None
