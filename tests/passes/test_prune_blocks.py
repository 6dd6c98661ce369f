"""Pruning by blocks on networks: cached and whole evaluations, a model that gets smaller and opens again, goals, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pass_models
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.contracts import Split
from edgetk.core.errors import InputError, PreconditionError, RecipeError
from edgetk.models import axformer
from edgetk.models.layers.elements import declared, macs_of, parameters_of
from edgetk.passes import _importance
from edgetk.passes._hierarchical import Outcome, Rules, Search, Trial
from edgetk.passes._prefix_cache import PrefixCache
from edgetk.passes._trials import Trials, batched
from edgetk.passes.prune_blocks import PruneBlocks
from edgetk.targets import board
from edgetk.toolkit import checkpoint
from edgetk.toolkit.notebook import PassNotebook
from edgetk.toolkit.progress import Silent
from edgetk.toolkit.workspace import Workspace

SMALL: dict[str, Any] = {"dim": 24, "layers": 3, "heads": 3, "ffn": 48, "vocabulary": 200, "positions": 16, "length": 12}


class Texts:
    """Token numbers of two classes: the first real token tells which; half of the texts are padded."""

    labels = ("odd", "even")
    origin = "made up"

    def split(self, name: str) -> Split:
        generator = torch.Generator().manual_seed(len(name))
        x = torch.randint(3, 100, (60, 12), generator=generator)
        x[::2, 8:] = 0
        return Split(name, x.float(), x[:, 0] % 2, self.origin)

    def calibration(self, n: int) -> Tensor:
        return self.split("train").features[:n]


def encoder(variant: str = "tiny", **config: Any) -> Bundle:
    torch.manual_seed(0)
    bundle = axformer.build(variant, **{**SMALL, "removed": (), "hardened": {}, **config})
    for name, value in bundle.module.named_parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=0.2)
        elif name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.1)
    return replace(bundle, data=Texts(), labels=Texts.labels, target=board.load("host"))  # type: ignore[arg-type]


def trials(bundle: Bundle, cached: bool = True) -> Trials:
    split = Texts().split("validation")
    body: Any = bundle.module if cached else Whole(bundle.module)
    return Trials(body, declared(bundle.module, 16), batched(bundle.module, split.features, split.labels, 16))


class Whole(nn.Module):
    """The same network without steps: nothing can be remembered."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def get_submodule(self, target: str) -> nn.Module:
        return self.net.get_submodule(target)

    def set_submodule(self, target: str, module: nn.Module, strict: bool = False) -> None:
        self.net.set_submodule(target, module, strict)


@pytest.mark.parametrize(
    "rules", [Rules(keep=4), Rules("size", "saved", max_loss=0.2, keep=4), Rules("size", "worth", max_loss=0.1)]
)
def test_remembered_beginnings_change_no_bit(rules: Rules) -> None:
    bundle = encoder()
    blocks = declared(bundle.module, 16)
    saves = {e.name: float(e.parameters) for b in blocks for e in (b, *b.parts)}  # type: ignore[attr-defined]
    kept, whole = trials(bundle), trials(bundle, cached=False)
    with_cache, without = (Search(blocks, t, rules, saves).run() for t in (kept, whole))
    assert with_cache == without  # every loss of the trace, bit for bit
    assert with_cache.removed
    batches, steps = 4, len(bundle.module.steps())  # type: ignore[operator]
    assert kept.steps_run < 0.8 * with_cache.evaluations * batches * steps


def test_a_trial_computes_from_its_layer_on_only() -> None:
    bundle = encoder()
    made = trials(bundle)
    made(Trial(frozenset(), {}, 0))
    before = made.steps_run
    assert before == 4 * 5  # batches, and the embedding, three layers and the decision
    made(Trial(frozenset({"layers.2.ffn"}), {}, 3))
    assert made.steps_run - before == 4 * 5  # what layers read is remembered from now on
    before = made.steps_run
    made(Trial(frozenset({"layers.2.attention"}), {}, 3))
    assert made.steps_run - before == 4 * 2


def test_the_outcome_by_hand() -> None:
    bundle = encoder()
    split, made = Texts().split("validation"), trials(bundle)
    base = made(Trial(frozenset(), {}, 0))
    with torch.no_grad():
        losses = [F.cross_entropy(bundle.module(x), y) for x, y in batched(bundle.module, split.features, split.labels, 16)]
        correct = int((bundle.module(split.features).argmax(1) == split.labels).sum())
    assert base.loss == pytest.approx(float(torch.stack(losses).mean()), abs=1e-6)
    assert (base.correct, base.as_good, made.n) == (correct, 60, 60)


def test_padding_is_trimmed_and_no_score_changes() -> None:
    bundle, split = encoder(), Texts().split("validation")
    parts = batched(bundle.module, split.features, split.labels, 16)
    assert [x.shape[1] for x, _ in parts] == [8, 12, 12, 12]
    order = torch.cat([torch.arange(0, 60, 2), torch.arange(1, 60, 2)])
    with torch.no_grad():
        together = torch.cat([bundle.module(x) for x, _ in parts])
        torch.testing.assert_close(together, bundle.module(split.features[order]), atol=1e-5, rtol=1e-5)


def test_a_cache_forgets_what_follows_a_change() -> None:
    body = nn.Module()
    factors = [2.0, 3.0, 5.0]
    body.steps = lambda: [lambda x, f=f: x * f for f in factors]  # type: ignore[misc, assignment]
    cache = PrefixCache(body, [torch.ones(1)])
    assert [float(cache.outputs(2)[0]), cache.computed] == [30.0, 3]
    factors[2] = 7.0
    assert [float(cache.outputs(2)[0]), cache.computed] == [42.0, 4]
    factors[1] = 4.0
    cache.forget(1)
    assert [float(cache.outputs(2)[0]), cache.computed] == [56.0, 6]


def compressed(made: PruneBlocks, bundle: Bundle) -> tuple[Bundle, dict[str, Any]]:
    result = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    assert result.modified
    record = PassRecord("prune-blocks", {}, {}, result.structure)
    return bundle.with_body(result.body, record, signature=result.signature or bundle.signature), dict(result.notes)


def tensor_bytes(content: bytes) -> int:
    """Of a safetensors file: all but its header."""
    return len(content) - 8 - int.from_bytes(content[:8], "little")


@pytest.mark.parametrize(
    "goal", [{"goal": "accuracy"}, {"goal": "size", "max_loss": 0.5, "max_drop": 0.0}, {"goal": "speed", "max_drop": 0.3}]
)
def test_a_smaller_model_that_opens_again(goal: dict[str, Any], tmp_path: Path) -> None:
    bundle = encoder()
    after, notes = compressed(PruneBlocks(**goal, keep=4, neurons=16, device="cpu"), bundle)
    counts = [sum(p.numel() for p in b.module.parameters()) for b in (bundle, after)]
    assert counts[0] - counts[1] == notes["parameters_removed"]
    assert notes["removed"] or notes["hard"]
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint.save_model(after))
    assert tensor_bytes(checkpoint.save_model(bundle)) - tensor_bytes(path.read_bytes()) == 4 * notes["parameters_removed"]
    again, x = checkpoint.load_model(path), Texts().split("test").features
    with torch.no_grad():
        assert torch.equal(again.module(x), after.module(x))
    if goal["goal"] == "speed":
        assert notes["milliseconds_saved"]["how"] == "measured"
    else:
        losses = [line["loss"] for line in notes["accepted"]]
        if goal["goal"] == "accuracy":
            assert losses == sorted(set(losses), reverse=True)
        else:
            assert len(losses) == len(notes["removed"]) + len(notes["hard"]) + 1


def test_predicted_milliseconds_order_a_search_for_a_board() -> None:
    bundle = replace(encoder(), target=board.load("raspberry-pi-5"))
    _, notes = compressed(PruneBlocks(goal="speed", max_loss=0.5, max_drop=0.0, keep=0, neurons=16, device="cpu"), bundle)
    saved = notes["milliseconds_saved"]
    assert saved.pop("how") == "predicted"
    target = bundle.target
    assert target is not None
    assert target.clock_hz is not None
    assert target.mem_bytes_per_s is not None
    block = declared(bundle.module, 16)[0]
    macs_s = block.macs / (target.macs_per_cycle["float32"] * target.clock_hz)
    assert saved[block.name] == pytest.approx(1e3 * max(macs_s, 4 * block.parameters / target.mem_bytes_per_s))


def test_what_a_search_found_makes_the_same_network() -> None:
    bundle = encoder()
    after, notes = compressed(PruneBlocks(goal="size", max_loss=0.5, max_drop=0.0, keep=4, neurons=16, device="cpu"), bundle)
    by_name, _ = compressed(PruneBlocks(removed=tuple(notes["removed"]), hard=notes["hard"], neurons=16), bundle)
    from_start = encoder(removed=notes["removed"], hardened=notes["hard"], neurons=16)
    from_start.module.load_state_dict(after.module.state_dict())
    x = Texts().split("test").features
    with torch.no_grad():
        assert torch.equal(by_name.module(x), after.module(x))
        assert torch.equal(from_start.module(x), after.module(x))


def test_nothing_may_go() -> None:
    bundle = encoder()
    torch.nn.init.normal_(bundle.module.head.weight, std=20.0)  # type: ignore[union-attr, arg-type]

    class Own(Texts):
        """The network is sure of its own answers, so that any change is for the worse."""

        def split(self, name: str) -> Split:
            found = super().split(name)
            with torch.no_grad():
                return replace(found, labels=bundle.module(found.features).argmax(1))

    sure = replace(bundle, data=Own())  # type: ignore[arg-type]
    result = PruneBlocks(keep=1, neurons=16, device="cpu")(sure)
    assert not result.modified
    assert result.notes["why"] == "no element may go"


def test_an_lmuformer_loses_channels_and_order() -> None:
    bundle = replace(pass_models.learned(), target=board.load("host"))
    result = PruneBlocks(goal="size", max_loss=0.5, max_drop=0.05, keep=0, device="cpu")(
        replace(bundle, body=copy.deepcopy(bundle.body))
    )
    removed = result.notes["removed"]
    assert {n.rpartition(".")[0] for n in removed} & {"channels.ffn", "embed.conv0", "embed.conv1"}
    assert any(n.startswith("mixer.memory") for n in removed)
    order = result.body.mixer.memory.order
    assert order < bundle.module.mixer.memory.order  # type: ignore[union-attr, operator]
    assert result.signature is not None
    memory = next(s for s in result.signature.state if s.name == "state_mixer_memory")
    assert memory.spec.shape == (1, order)
    score = sum(
        int((body.clip(split.features).argmax(1) == split.labels).sum())
        for body, split in [(result.body, bundle.data.split("validation"))]  # type: ignore[union-attr]
    )
    assert score >= 0.8 * 48


def test_a_notebook_outlives_an_interruption(tmp_path: Path) -> None:
    bundle, made = encoder(), PruneBlocks(goal="size", max_loss=0.3, max_drop=0.0, keep=4, neurons=16, device="cpu")
    workspace = Workspace.at(tmp_path)

    class Stops(PassNotebook):
        def add(self, entry: Any) -> None:
            super().add(entry)
            if len(self.earlier()) == 9:
                raise KeyboardInterrupt

    first = Stops(workspace, 1, "prune-blocks", Silent())
    with pytest.raises(KeyboardInterrupt), first:
        made(replace(bundle, body=copy.deepcopy(bundle.body), notebook=first))
    second = PassNotebook(workspace, 1, "prune-blocks", Silent())
    assert len(second.earlier()) == 9
    with second:
        resumed = made(replace(bundle, body=copy.deepcopy(bundle.body), notebook=second))
    whole = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    assert resumed.notes == whole.notes
    assert len(second.earlier()) == whole.notes["evaluations"]
    workspace.write_text(second.file, "no JSON\n")
    with pytest.raises(InputError, match=r"must be lines of JSON, got: .*; run again without --resume"):
        PassNotebook(workspace, 1, "prune-blocks", Silent()).earlier()


def test_a_bar_shows_what_is_left(tmp_path: Path) -> None:
    seen: list[tuple[str, float | None]] = []

    class Bars(Silent):
        def task(self, what: str, total: float | None = None) -> Any:
            seen.append((what, total))
            return super().task(what, total)

    bundle, made = encoder(), PruneBlocks(keep=4, neurons=16, device="cpu")
    with PassNotebook(Workspace.at(tmp_path), 1, "prune-blocks", Bars()) as notebook:
        made(replace(bundle, body=copy.deepcopy(bundle.body), notebook=notebook))
    most = 3 + 3 * (1 + 3) + 3 * (1 + 3) + 1
    assert seen == [("prune-blocks: evaluations", most - 1)]


@pytest.mark.parametrize("rules", [Rules(keep=4), Rules("size", "saved", max_loss=0.5), Rules("size", "worth", max_loss=0.5)])
def test_along_a_search_nothing_grows(rules: Rules) -> None:
    bundle = encoder()
    blocks, evaluate, accepted = declared(bundle.module, 16), trials(bundle), list[Trial]()

    class Listening:
        n = evaluate.n

        def __call__(self, trial: Trial) -> Outcome:
            return evaluate(trial)

        def accept(self, trial: Trial) -> None:
            accepted.append(trial)
            evaluate.accept(trial)

    saves = {b.name: float(b.parameters) for b in blocks} | {p.name: float(p.parameters) for b in blocks for p in b.parts}
    found = Search(blocks, Listening(), rules, saves).run()
    assert accepted
    assert accepted[-1].removed == found.removed
    for count in (parameters_of, macs_of):
        gone = [count(blocks, trial.removed) for trial in accepted]
        assert gone == sorted(gone)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"goal": "small"}, "prune-blocks: goal must be one of 'accuracy', 'size', 'speed', got 'small'"),
        ({"order": "up"}, "prune-blocks: order must be one of '', 'layers', 'saved', 'worth', 'taylor', got 'up'"),
        ({"order": "saved"}, "prune-blocks: order must be 'layers' for goal accuracy"),
        ({"gate": 0.5}, "max_loss must be at least 0, max_drop in .* and gate at least 1, got 0.02, 0.01 and 0.5"),
        ({"goal": "size", "max_loss": 0.0, "max_drop": 0.0}, "prune-blocks: goal size needs a budget"),
        ({"neurons": 0}, "neurons, examples and what is in hard at least 1, got 30, 0, 1000"),
        ({"hard": {"layers.0.attention": 0}}, "what is in hard at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        PruneBlocks(**settings)


def test_models_it_cannot_work_on() -> None:
    bundle = encoder()
    with pytest.raises(PreconditionError, match=r"by a method elements\(\), got Linear without one"):
        PruneBlocks().check(replace(bundle, body=nn.Linear(1, 1)))
    with pytest.raises(PreconditionError, match="prune-blocks: needs calibration data"):
        PruneBlocks().check(replace(bundle, data=None))
    with pytest.raises(PreconditionError, match=r"elements: a name must be one of the model's, got 'layers\.9\.ffn'"):
        PruneBlocks(removed=("layers.9.ffn",)).check(bundle)
    with pytest.raises(PreconditionError, match=r"goal speed needs a target .*, got none; choose goal size"):
        PruneBlocks(goal="speed").check(replace(bundle, target=None))
    for layer in bundle.module.layers:  # type: ignore[union-attr]
        layer.up = nn.Sequential(layer.up)  # type: ignore[union-attr]
        layer.attention.query = nn.Sequential(layer.attention.query)  # type: ignore[union-attr]
    with pytest.raises(PreconditionError, match="needs blocks of plain linear layers, got none"):
        PruneBlocks(neurons=16).check(bundle)


def test_reports_of_other_runs(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(InputError, match=r"must be the report\.json of a run, got"):
        axformer.found_in(path)
    path.write_text('{"lineage": []}')
    with pytest.raises(InputError, match="with one prune-blocks that removed something, got 0"):
        axformer.found_in(path)
    path.write_text(
        '{"lineage": [{"name": "prune-blocks", "structure": {"removed": ["layers.0.ffn"], "hard": {}, "neurons": 16}}]}'
    )
    found = axformer.found_in(path)
    assert len(declared(encoder(**found).module, 16)) == 5


class Trainable(Texts):
    """The same, and a training split that gradients are taken on."""

    augmentations: ClassVar[Mapping[str, Any]] = {"none": None}

    def batches(
        self, device: torch.device | str, augmentation: Any = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        train = self.split("train")
        return lambda rows: (train.features[rows], F.one_hot(train.labels[rows], 2).float()), len(train.labels)


def test_gradients_order_a_search() -> None:
    bundle = replace(encoder(), data=Trainable())  # type: ignore[arg-type]
    made = PruneBlocks(goal="size", order="taylor", max_loss=0.3, max_drop=0.0, keep=0, neurons=16, device="cpu")
    made.check(bundle)
    _, notes = compressed(made, bundle)
    blocks = declared(bundle.module, 16)
    scores = _importance.elements(bundle, blocks, "taylor", 96)
    sizes = {b.name: b.parameters for b in blocks} | {p.name: p.parameters for b in blocks for p in b.parts}
    first = min(scores, key=lambda name: scores[name] / sizes[name])
    assert first in notes["removed"]
    assert notes["evaluations"] <= 1 + len(scores)
    with pytest.raises(PreconditionError, match="prune-blocks: taylor needs training data"):
        made.check(encoder())
