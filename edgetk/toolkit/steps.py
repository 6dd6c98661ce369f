"""The passes of a run, one after the other: check, copy, call, verify, evaluate, judge, record, checkpoint."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from edgetk.core import registry
from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.contracts import Lowered, Pass, PassResult
from edgetk.core.errors import EdgetkError, PostconditionError, PreconditionError
from edgetk.core.figures import Score
from edgetk.toolkit import calling, checkpoint, judge
from edgetk.toolkit.cost import Costs
from edgetk.toolkit.notebook import PassNotebook
from edgetk.toolkit.progress import Progress, Silent
from edgetk.toolkit.recipe import Goals, PassStep
from edgetk.toolkit.result import UNFIT, FormMeasures, PassRow, score_from_json
from edgetk.toolkit.workspace import Workspace

STATE = "state.json"
SCHEMA_VERSION = 1
#: whole inputs on which a lossless pass is verified
INPUTS = 16

Scorer = Callable[[Bundle], Score | None]


@dataclass(frozen=True)
class Candidate:
    """A model of the run with what it costs; `file` is its checkpoint, "" for the original."""

    bundle: Bundle
    costs: Costs
    file: str = ""

    @cached_property
    def lowered(self) -> Mapping[str, Lowered]:
        """Its forms as graphs."""
        return self.costs.lower(self.bundle)

    @cached_property
    def measures(self) -> tuple[FormMeasures, ...]:
        """What its forms cost."""
        return self.costs.measures(self.lowered)

    def form(self, name: str) -> FormMeasures:
        """What one form costs."""
        return next(m for m in self.measures if m.form == name)


@dataclass(frozen=True)
class State:
    """Where a run stands: `main` is the model that the next pass gets, `forms` the model that each form is exported from."""

    score: Score | None
    original: tuple[FormMeasures, ...]
    main: Candidate
    forms: Mapping[str, Candidate]
    rows: tuple[PassRow, ...] = ()

    def save(self, workspace: Workspace, identity: str) -> None:
        """Write it down, so that the run can go on from here."""
        workspace.write_json(
            STATE,
            {
                "schema_version": SCHEMA_VERSION,
                "recipe_sha256": identity,
                "score": self.score.to_json() if self.score else None,
                "original": [m.to_json() for m in self.original],
                "rows": [row.to_json() for row in self.rows],
                "main": self.main.file,
                "forms": {form: candidate.file for form, candidate in self.forms.items()},
            },
        )


def begin(bundle: Bundle, costs: Costs, score: Scorer) -> State:
    """The state before the first pass."""
    first = Candidate(bundle, costs)
    return State(score(bundle), first.measures, first, dict.fromkeys(first.lowered, first))


def resume(bundle: Bundle, costs: Costs, identity: str) -> State | None:
    """The state that was written down for this recipe, None where there is none. Raises InputError if it is damaged."""
    workspace = costs.workspace
    if not workspace.has(STATE):
        return None
    data = workspace.read_json(STATE)
    if data.get("schema_version") != SCHEMA_VERSION or data.get("recipe_sha256") != identity:
        return None
    known = {"": Candidate(bundle, costs)}
    for file in (data["main"], *data["forms"].values()):
        if file not in known:
            known[file] = Candidate(checkpoint.restore(workspace.path(file), bundle), costs, file)
    return State(
        score_from_json(data["score"]) if data["score"] else None,
        tuple(FormMeasures.from_json(m) for m in data["original"]),
        known[data["main"]],
        {form: known[file] for form, file in data["forms"].items()},
        tuple(PassRow.from_json(row) for row in data["rows"]),
    )


def check(steps: tuple[PassStep, ...], bundle: Bundle) -> tuple[tuple[Pass, ...], Mapping[int, str]]:
    """All passes of a recipe, and why those that are optional cannot work on `bundle`, by their place.

    Raises PreconditionError for one that is not optional, before any work is done.
    """
    passes, unfit = [], {}
    for index, step in enumerate(steps):
        passes.append(made := step.build())
        try:
            _accepts(step.name, made, bundle)
            made.check(bundle)
        except PreconditionError as error:
            if not step.optional:
                raise
            unfit[index] = str(error)
    return tuple(passes), unfit


def left_out(state: State, step: PassStep, why: str) -> State:
    """The state with a row for a pass that was not run."""
    return _with(state, PassRow(step.name, step.settings, False, f"{UNFIT}: {why}"))


def _accepts(name: str, made: Pass, bundle: Bundle) -> None:
    kind = "torch" if bundle.is_torch else "onnx"
    if kind in made.accepts:
        return
    others = []
    for other, entry in registry.entries("pass").items():
        if entry.problem() is None and kind in entry.load().accepts:
            others.append(other)
    raise PreconditionError(
        f"pass {name}: the model must be {' or '.join(made.accepts)}, got {kind} ({bundle.name}); "
        f"passes that accept {kind}: {', '.join(others) or 'none'}"
    )


@dataclass(frozen=True)
class Steps:
    """What every pass of one run shares."""

    costs: Costs
    score: Scorer
    goals: Goals
    seed: int
    log: Callable[[str], None] = field(default=lambda text: None)
    progress: Progress = field(default_factory=Silent)

    def apply(self, index: int, name: str, made: Pass, settings: Mapping[str, Any], state: State) -> State:
        """One pass: the state after it, checkpointed. Raises PostconditionError if the pass breaks its promise."""
        started = time.monotonic()
        before = state.main
        try:
            made.check(before.bundle)
        except PreconditionError as error:  # it could work on the original; what an earlier pass made is another matter
            return _with(state, PassRow(name, settings, False, f"does not work on what the passes before it made: {error}"))
        result = self._call(index, name, made, before.bundle)
        notes = _plain(name, "notes", result.notes)
        if not result.modified:
            reason = f"nothing worth changing{': ' if 'why' in notes else ''}{notes.get('why', '')}"
            return _with(state, PassRow(name, settings, False, reason, notes=notes, seconds=time.monotonic() - started))
        candidate = self._candidate(index, name, settings, made, result, before)
        score = self.score(candidate.bundle)
        slower = {form: self._slower(state.forms[form], candidate, form) for form in candidate.lowered if form in state.forms}
        lost = judge.drop(state.score, score)
        verdict = judge.judge(lost, score, self.goals, slower)
        # a model that is taken back stays as a file: smaller and slower may be what somebody else looks for
        content = checkpoint.save_model(candidate.bundle)
        file = self.costs.workspace.checkpoint(index, name + checkpoint.suffix(candidate.bundle), content)
        row = PassRow(
            name, settings, verdict.kept, verdict.reason, score, lost, candidate.measures, verdict.forms, notes,
            time.monotonic() - started, file,
        )  # fmt: skip
        if not verdict.kept:
            return _with(state, row)
        kept = Candidate(candidate.bundle, self.costs, file)
        kept.__dict__.update(lowered=candidate.lowered, measures=candidate.measures)  # known already, so not computed twice
        forms = {form: kept if form in verdict.forms else old for form, old in state.forms.items()}
        return _with(replace(state, main=kept, forms=forms), row)

    def _call(self, index: int, name: str, made: Pass, bundle: Bundle) -> PassResult:
        notebook = PassNotebook(self.costs.workspace, index, name, self.progress)
        private = replace(bundle, body=copy.deepcopy(bundle.body), notebook=notebook)
        try:
            with calling.seeded((self.seed + index) % 2**32), notebook:
                return made(private)
        except EdgetkError:
            raise
        except Exception as error:  # a pass is a plug-in: it may fail in any way
            raise PostconditionError(
                f"pass {name}: must finish, got {type(error).__name__}: {error}; the passes before it are kept, "
                "take it out of the recipe or mend it"
            ) from error

    def _candidate(
        self, index: int, name: str, settings: Mapping[str, Any], made: Pass, result: PassResult, before: Candidate
    ) -> Candidate:
        """The pass's model, after it was held against the pass's promise."""
        structure = _plain(name, "structure", result.structure) if result.structure is not None else None
        record = PassRecord(name, dict(settings), _plain(name, "notes", result.notes), structure)
        old = before.bundle
        bundle = old.with_body(result.body, record, signature=result.signature or old.signature, clip=result.clip or old.clip)
        if bundle.is_torch:
            from edgetk.models.layers.exact import settle

            settle(bundle.module.eval())
            calling.check_interface(bundle, f"pass {name}")
        else:
            calling.check_graph(bundle, f"pass {name}")
        if made.lossless:
            inputs = old.data.calibration(INPUTS) if old.data is not None else None
            calling.check_lossless(old, bundle, inputs, f"pass {name}")
        return Candidate(bundle, self.costs)

    def _slower(self, before: Candidate, after: Candidate, form: str) -> str | None:
        graphs = (before.lowered[form], after.lowered[form])
        return self.costs.slower(before.form(form), after.form(form), graphs)


def _with(state: State, row: PassRow) -> State:
    return replace(state, rows=(*state.rows, row))


def _plain(name: str, what: str, data: Any) -> dict[str, Any]:
    """Notes and structure as JSON gives them back. Raises PostconditionError for anything else than plain data."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False, default=dict))
    except (TypeError, ValueError) as error:
        raise PostconditionError(
            f"pass {name}: {what} must be plain numbers, texts, lists and tables, got: {error}; mend the pass"
        ) from error
    return plain
