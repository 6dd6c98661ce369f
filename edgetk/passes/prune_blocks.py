"""Pruning by blocks: attentions, feed-forward networks, heads, groups of neurons go where the loss allows it, without training.

Source: AxFormer, Nagarajan et al. 2020, arXiv:2010.03688, and the authors' code; free choices are listed in docs/axformer.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.passes._hierarchical import Goal, NoNotebook, Order, Rules, Search

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from edgetk.models.layers.elements import Block
    from edgetk.passes._hierarchical import Found

FLOAT_BYTES = 4
#: inputs that the reader of a memory of lower order is refitted on, examples that order taylor takes gradients of
CALIBRATION = 96
CRITERIA = ("loss", "magnitude", "taylor")


@dataclass(frozen=True)
class PruneBlocks:
    """Greedy search over what the module's `elements()` declare, coarse before fine, on held-out samples; then deletion.

    With `removed` (and `hard`) there is no search: these elements go, as an earlier search found them. Nor is there one with
    another `criterion` than the loss: the least important elements go, up to `share` of the parameters of all.
    """

    #: "accuracy": the loss must fall; "size", "speed": it may rise within max_loss, and right answers fall within max_drop
    goal: str = "accuracy"
    #: "layers", the last first; "saved", what saves most; "worth", "taylor", what matters least per saving; "": the goal's
    order: str = ""
    #: goal accuracy: besides the mean, more than half of the samples must not lose against the original model
    per_sample: bool = True
    #: goals size and speed: rise of the loss, as a share of the original's; 0: not judged by it
    max_loss: float = 0.02
    #: goals size and speed: right answers lost, as a share of all; 0: not judged by it
    max_drop: float = 0.01
    #: a rejected block whose loss is below so many times the limit is opened
    gate: float = 1.1
    #: weights of a query that hard attention keeps; 0: no scan for it
    keep: int = 30
    #: neurons of a feed-forward network that go together
    neurons: int = 256
    #: "loss": the search; "magnitude" or "taylor": what is least important per parameter goes (Taylor needs training data)
    criterion: str = "loss"
    #: criteria other than the loss: elements go up to this share of the parameters of all elements, in (0, 1)
    share: float = 0.0
    #: samples that judge candidates, balanced over the classes; for taylor, of which gradients are taken
    examples: int = 1000
    #: elements that go without a search, by name
    removed: tuple[str, ...] = ()
    #: attentions that become hard without a search: name -> weights kept
    hard: Mapping[str, int] = field(default_factory=dict)
    #: where candidates are tried: "cpu", "cuda", or "auto", a GPU where there is one
    device: str = "auto"

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, known in (("goal", get_args(Goal)), ("order", ("", *get_args(Order))), ("criterion", CRITERIA)):
            if getattr(self, name) not in known:
                texts = ", ".join(repr(k) for k in known)
                raise RecipeError(
                    f"prune-blocks: {name} must be one of {texts}, got {getattr(self, name)!r}; correct the recipe"
                )
        if self.goal == "accuracy" and self.order not in ("", "layers"):
            raise RecipeError(
                f"prune-blocks: order must be 'layers' for goal accuracy, which saves nothing on purpose, got {self.order!r}; "
                "choose goal size or speed, or leave order out"
            )
        if not (self.max_loss >= 0.0 and 0.0 <= self.max_drop <= 1.0 and self.gate >= 1.0):
            raise RecipeError(
                "prune-blocks: max_loss must be at least 0, max_drop in [0, 1] and gate at least 1, "
                f"got {self.max_loss}, {self.max_drop} and {self.gate}; correct the recipe"
            )
        if (self.criterion == "loss") != (self.share == 0.0) or not 0.0 <= self.share < 1.0:
            raise RecipeError(
                "prune-blocks: share must be in (0, 1) for the criteria magnitude and taylor, and 0 for loss, "
                f"got {self.share} for {self.criterion}; correct the recipe"
            )
        if self.goal != "accuracy" and not (self.max_loss or self.max_drop):
            raise RecipeError(f"prune-blocks: goal {self.goal} needs a budget, got max_loss and max_drop 0; give one of them")
        if self.keep < 0 or min(self.neurons, self.examples) < 1 or any(k < 1 for k in self.hard.values()):
            raise RecipeError(
                "prune-blocks: keep must be at least 0, neurons, examples and what is in hard at least 1, "
                f"got {self.keep}, {self.neurons}, {self.examples} and {dict(self.hard)}; correct the recipe"
            )

    @property
    def rules(self) -> Rules:
        """When a candidate is accepted."""
        order = self.order or ("layers" if self.goal == "accuracy" else "saved")
        shared: Any = {"goal": self.goal, "order": order, "gate": self.gate, "keep": self.keep}
        return Rules(per_sample=self.per_sample, max_loss=self.max_loss, max_drop=self.max_drop, **shared)

    def check(self, bundle: Bundle) -> None:
        """The module must declare elements, and there must be data to judge on."""
        from edgetk.models.layers.elements import declared, find
        from edgetk.passes import _saved_time
        from edgetk.passes._importance import require_gradients
        from edgetk.passes._statistics import require_data

        blocks = declared(bundle.module, self.neurons)
        if not blocks:
            raise PreconditionError(
                f"prune-blocks: needs blocks of plain linear layers, got none in {bundle.name}; "
                "prune before factorize, tabulate and quantize"
            )
        if self.removed or self.hard:
            find(blocks, [*self.removed, *self.hard])
            if any(b.memory is not None and b.order(self.removed) < b.memory.order for b in blocks):
                require_data(bundle, "prune-blocks")
            return
        if self.criterion != "loss":
            require_gradients(bundle, self.criterion, "prune-blocks")
            return
        require_data(bundle, "prune-blocks")
        if self.order == "taylor":
            require_gradients(bundle, self.order, "prune-blocks")
        if self.goal == "speed":
            _saved_time.require(bundle.target, "prune-blocks")

    def __call__(self, bundle: Bundle) -> PassResult:
        from edgetk.models.layers.elements import declared

        blocks = declared(bundle.module, self.neurons)
        if self.removed or self.hard:
            removed = frozenset(self.removed)
            lower = [b for b in blocks if b.memory is not None and b.order(removed) < b.memory.order]
            return self._result(bundle, blocks, removed, dict(self.hard), _refits(bundle, lower), {})
        if self.criterion != "loss":
            return self._least_important(bundle, blocks)
        refit = _refits(bundle, blocks)
        found, notes = self._search(bundle, blocks, refit)
        if not found.removed and not found.hard:
            return PassResult(bundle.body, False, {**notes, "why": "no element may go"})
        return self._result(bundle, blocks, found.removed, found.hard, refit, notes)

    def _least_important(self, bundle: Bundle, blocks: Sequence[Block]) -> PassResult:
        """Without a search: by one number for each element."""
        from edgetk.passes import _importance

        scores = _importance.elements(bundle, blocks, self.criterion, self.examples)
        removed = _importance.least(blocks, scores, self.share)
        notes = {"importance": {name: float(f"{score:.4g}") for name, score in scores.items()}}
        if not removed:
            return PassResult(bundle.body, False, {**notes, "why": "no element fits into the share"})
        return self._result(bundle, blocks, removed, {}, {}, notes)

    def _search(
        self, bundle: Bundle, blocks: Sequence[Block], refit: Mapping[str, Callable[[int], torch.Tensor]]
    ) -> tuple[Found, dict[str, Any]]:
        from edgetk.passes import _importance, _saved_time
        from edgetk.passes._statistics import judging
        from edgetk.passes._trials import Trials, batched
        from edgetk.tasks.training.tuning import resolve

        assert bundle.data is not None
        body, device = bundle.module, resolve(self.device)
        split = judging(bundle, self.examples)
        notes: dict[str, Any] = {"examples": len(split.labels), "split": split.name}
        saves = {b.name: float(FLOAT_BYTES * b.parameters) for b in blocks}
        saves |= {p.name: float(FLOAT_BYTES * p.parameters) for b in blocks for p in b.parts}
        if self.goal == "speed":
            saves, how = _saved_time.saved(bundle, blocks, bundle.data.calibration(1))
            notes["milliseconds_saved"] = {"how": how, **{b.name: 1e3 * saves[b.name] for b in blocks}}
        importance = _importance.elements(bundle, blocks, "taylor", CALIBRATION) if self.order == "taylor" else {}
        body.to(device).eval()
        batches = [(x.to(device), y.to(device)) for x, y in batched(body, split.features, split.labels)]
        trials = Trials(body, blocks, batches, refit)
        found = Search(blocks, trials, self.rules, saves, importance, bundle.notebook or NoNotebook()).run()
        body.cpu()
        accepted = [{k: line[k] for k in ("what", "loss", "correct")} for line in found.trace if line["accepted"]]
        return found, {**notes, "evaluations": found.evaluations, "accepted": accepted}

    def _result(
        self,
        bundle: Bundle,
        blocks: Sequence[Block],
        removed: frozenset[str],
        hard: Mapping[str, int],
        refit: Mapping[str, Callable[[int], torch.Tensor]],
        notes: Mapping[str, Any],
    ) -> PassResult:
        """Delete for good."""
        from edgetk.models.layers.removal import delete

        names = [n for b in blocks for n in (b.name, *(p.name for p in b.parts)) if n in removed]
        body = bundle.module
        before = sum(p.numel() for p in body.parameters())
        delete(body, blocks, removed, hard, refit)
        counted = {"parameters": before, "parameters_removed": before - sum(p.numel() for p in body.parameters())}
        signature = body.stream_signature() if hasattr(body, "stream_signature") else None  # type: ignore[operator]
        structure = {"removed": names, "hard": dict(hard), "neurons": self.neurons}
        return PassResult(body, True, {**notes, **counted, "removed": names, "hard": dict(hard)}, structure, signature)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Delete the same elements; weights come afterwards."""
        from edgetk.models.layers.elements import declared
        from edgetk.models.layers.removal import delete

        delete(body, declared(body, structure["neurons"]), structure["removed"], structure["hard"])
        return body


def _refits(bundle: Bundle, blocks: Sequence[Block]) -> dict[str, Callable[[int], torch.Tensor]]:
    """The best weights of the readers of `blocks`' memories at every order that may be tried, from calibration inputs."""
    from edgetk.passes._search import lagged

    found: dict[str, Callable[[int], torch.Tensor]] = {}
    for block in blocks:
        if block.memory is not None:
            assert bundle.data is not None
            second = lagged(bundle, block.memory, bundle.data.calibration(CALIBRATION)).second
            orders = {p.first: block.memory.refit(bundle.module, p.first, second)[0] for p in block.parts}
            found[block.name] = orders.__getitem__
    return found


PASS = PruneBlocks
