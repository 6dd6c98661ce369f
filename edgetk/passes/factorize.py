"""Factorization of linear layers: low rank, W ~ U V, or a dense times a sparse factor, in the metric of what a layer reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError, closest

#: what a layer may become
METHODS = ("svd", "fwsvd", "dense-sparse")
#: what a budget may be in
BUDGETS = ("ratio", "bytes", "macs")
#: shares of the outputs' variance that splitting one layer may change, tried in this order until accuracy suffers
LADDER = (0.0005, 0.001, 0.002, 0.005, 0.01)
#: shares of the highest rank that pays which are tried
LEVELS = (1.0, 0.75, 0.5, 0.375)
#: ranks are multiples of this
MULTIPLE = 8


@dataclass(frozen=True)
class Factorize:
    """Replace linear layers by two smaller ones where that saves work.

    Sources: "svd": Eckart & Young 1936, weighted by the covariance of the layer's input; "fwsvd": Hsu et al. 2022,
    arXiv:2207.00112, rows weighted by Fisher information of the task's loss; "dense-sparse": DSFormer, arXiv:2312.13211.

    Without a budget (svd only) a layer is split at the lowest rank at which the model's outputs change by no more than is
    allowed, if the pair then costs at most `pays` of the layer. The allowance grows until accuracy on validation falls by more
    than `max_drop`. `ranks` fixes layers and ranks instead of searching (fine-tuning follows then).

    With a `budget` all chosen layers are factorized to the same share: {"ratio": 2.8} times fewer bits, or {"bytes": n} or
    {"macs": n} for all of them together, biases apart. The sizes of a dense-sparse pair are those with the smallest measured
    error of a few, tried on the first layer of each kind. Fine-tuning, or `refactorize`, is meant to follow.

    Layers that read spikes (`spike_driven()`) stay whole: their products are additions, which between the two of a pair they
    would not be. So do all layers of a module with `exact_sums`, which those of a pair could not keep.
    """

    #: "svd", "fwsvd" or "dense-sparse"
    method: str = "svd"
    #: one of ratio, bytes and macs; empty: search (svd only)
    budget: Mapping[str, float] = field(default_factory=dict)
    #: with a budget: names or name endings of the layers, such as "up"; empty: all that are large enough
    layers: tuple[str, ...] = ()
    #: dense-sparse: one dictionary for layers that read one input
    share: bool = True
    #: dense-sparse: atoms in as many groups as a line has non-zeros, one of each, whose indices take fewer bits
    grouped: bool = False
    #: with a budget: weigh errors by what the layers read
    activations: bool = True
    #: dense-sparse: alternations between dictionary and coefficients
    rounds: int = 8
    #: dense-sparse: where factors are learned; "auto" takes a GPU where there is one
    device: str = "auto"
    #: accuracy on validation that the search may give up, in [0, 1]
    max_drop: float = 0.0025
    #: fixed rank per layer, such as {"embed.position.taps": 64}; empty: search
    ranks: Mapping[str, int] = field(default_factory=dict)
    #: a pair must have at most this share of the layer's weights, in (0, 1): two products have more overhead than one
    pays: float = 0.7
    #: layers with fewer weights stay as they are
    min_weights: int = 16384
    #: inputs that the covariances are taken over
    calibration: int = 96
    #: validation examples that judge a candidate
    examples: int = 1000

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drop <= 1.0 or not 0.0 < self.pays < 1.0:
            raise RecipeError(
                f"factorize: max_drop must be in [0, 1] and pays in (0, 1), got {self.max_drop} and {self.pays}; "
                "correct the recipe"
            )
        if min(self.calibration, self.examples, self.rounds) < 1:
            raise RecipeError(
                "factorize: calibration, examples and rounds must be at least 1, "
                f"got {self.calibration}, {self.examples} and {self.rounds}; correct the recipe"
            )
        if self.method not in METHODS:
            raise RecipeError(f"factorize: method must be one of {', '.join(METHODS)}, got {self.method!r}; correct the recipe")
        if self.device not in ("auto", "cpu", "cuda"):
            raise RecipeError(f"factorize: device must be auto, cpu or cuda, got {self.device!r}; correct the recipe")
        if self.budget and (len(self.budget) != 1 or not self.budget.keys() <= {*BUDGETS} or not min(self.budget.values()) > 0):
            raise RecipeError(
                f"factorize: budget must be one of {', '.join(BUDGETS)} with a number above 0, got {dict(self.budget)}; "
                "correct the recipe"
            )
        if self.budget.get("ratio", 2.0) <= 1.0:
            raise RecipeError(f"factorize: a ratio must be above 1, got {self.budget['ratio']}; correct the recipe")
        if self.method != "svd" and not self.budget:
            raise RecipeError(f"factorize: {self.method} needs a budget, got none; add one such as {{ratio = 2.8}}")
        if self.budget and self.ranks:
            raise RecipeError("factorize: ranks and a budget must not be given together, got both; leave one out")

    def check(self, bundle: Bundle) -> None:
        """There must be a linear layer that is large enough, and data."""
        from edgetk.passes._statistics import require_data

        require_data(bundle, "factorize")
        if self.budget:
            from edgetk.passes._budget import check

            check(self, bundle, self._chosen(bundle.module))
            return
        if not self.ranks and not _linears(bundle.module, self.min_weights):
            raise PreconditionError(
                f"factorize: needs a linear layer of at least {self.min_weights} weights, got none in {bundle.name}; "
                "lower min_weights or leave factorize out"
            )
        known, whole = _linears(bundle.module, 0), _whole(bundle.module)
        for name, rank in self.ranks.items():
            if name not in known:
                raise PreconditionError(f"factorize: ranks must name plain linear layers, got {name!r}; {closest(name, known)}")
            if name in whole:
                raise PreconditionError(
                    f"factorize: ranks must name layers that may be split, got {name}, {whole[name]}; leave it out"
                )
            full: Any = bundle.module.get_submodule(name)
            most = min(full.weight.shape) - 1
            if not 1 <= rank <= most:
                raise PreconditionError(f"factorize: the rank of {name} must be in [1, {most}], got {rank}; correct the recipe")

    def __call__(self, bundle: Bundle) -> PassResult:
        if self.budget:
            from edgetk.passes._budget import factorize

            return factorize(self, bundle, self._chosen(bundle.module))
        return self._search(bundle)

    def _chosen(self, body: Any) -> list[str]:
        """With a budget: the layers it is for."""
        whole = _whole(body)
        return [
            name
            for name in _linears(body, self.min_weights)
            if name not in whole and (not self.layers or any(name == x or name.endswith(f".{x}") for x in self.layers))
        ]

    def _search(self, bundle: Bundle) -> PassResult:
        import copy

        from edgetk.passes._least_squares import low_rank
        from edgetk.passes._statistics import Guide, collect, output_change

        assert bundle.data is not None
        body = bundle.module
        whole = _whole(body)
        large = _linears(body, self.min_weights)
        names = list(self.ranks) or [name for name in large if name not in whole]
        held = {name: whole[name] for name in large if name in whole}
        kept = {"kept_whole": held} if held else {}
        if not names:
            reasons = [f"{count} {reason}" for reason, count in Counter(held.values()).items()]
            return PassResult(body, False, {"why": f"no layer may be split: {', '.join(reasons)}", **kept})
        inputs = bundle.data.calibration(self.calibration)
        moments = collect(bundle, names, inputs)
        factors = {}
        for name in names:
            layer: Any = body.get_submodule(name)
            factors[name] = (*low_rank(layer.weight.detach(), moments[name], layer.bias is not None), moments[name].mean)

        def split(ranks: Mapping[str, int]) -> Bundle:
            return replace(bundle, body=split_layers(copy.deepcopy(body), ranks, factors))

        ranks = dict(self.ranks)
        tried: list[dict[str, Any]] = []
        if not self.ranks:
            change = output_change(bundle, inputs)
            table = {n: {rank: change.of(split({n: rank}).predict()) for rank in self._candidates(body, n)} for n in names}
            guide: Guide | None = None
            for share in LADDER:
                candidate = {n: min(fits) for n, c in table.items() if (fits := [r for r, x in c.items() if x <= share])}
                if not candidate or candidate == ranks:
                    continue
                guide = guide or Guide(bundle, self.examples)
                drop = guide.drop(split(candidate))
                tried.append({"output_change": share, "accuracy_drop": drop, "ranks": candidate})
                if drop > self.max_drop:
                    break
                ranks = candidate
        if not ranks:
            return PassResult(body, False, {"tried": tried, **kept})
        return PassResult(split_layers(body, ranks, factors), True, {"ranks": ranks, "tried": tried, **kept}, {"ranks": ranks})

    def _candidates(self, body: Any, name: str) -> list[int]:
        """Ranks of one layer that pay, the highest first."""
        outputs, inputs = body.get_submodule(name).weight.shape
        most = self.pays * inputs * outputs / (inputs + outputs)
        ranks = {int(most * level) // MULTIPLE * MULTIPLE for level in LEVELS}
        return sorted((r for r in ranks if r > 0), reverse=True)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Split the same layers at the same sizes; the weights come afterwards."""
        from edgetk.models.layers.dense_sparse import install
        from edgetk.models.layers.dense_sparse_sizes import Group
        from edgetk.models.layers.quantized import LowRank

        install(body, [Group.from_json(group) for group in structure.get("groups", ())])
        for name, rank in structure.get("ranks", {}).items():
            layer = body.get_submodule(name)
            body.set_submodule(name, LowRank(layer.in_features, rank, layer.out_features, layer.bias is not None))
        return body


def _linears(body: Any, smallest: int) -> list[str]:
    from torch import nn

    return [name for name, m in body.named_modules() if type(m) is nn.Linear and m.weight.numel() >= smallest]


def _whole(body: Any) -> dict[str, str]:
    """The linear layers that must stay one product, each with the reason."""
    exact = _linears(body, 0) if getattr(body, "exact_sums", False) else ()
    spiking = body.spike_driven() if hasattr(body, "spike_driven") else ()
    return dict.fromkeys(exact, "whose sums are exact") | dict.fromkeys(spiking, "whose products are additions of spikes")


def split_layers(body: Any, ranks: Mapping[str, int], factors: Mapping[str, Any]) -> Any:
    """`body` with the layers of `ranks` as pairs; the mean of what is lost goes into the bias, where there is one."""
    import torch

    from edgetk.models.layers.quantized import LowRank

    with torch.no_grad():
        for name, rank in ranks.items():
            layer = body.get_submodule(name)
            u, v, _, mean = factors[name]
            pair = LowRank(layer.in_features, rank, layer.out_features, layer.bias is not None)
            pair.down.weight.copy_(v[:rank])
            pair.up.weight.copy_(u[:, :rank])
            if layer.bias is not None:
                lost = (layer.weight.double() - u[:, :rank] @ v[:rank]) @ mean
                pair.up.bias.copy_(layer.bias.double() + lost)
            body.set_submodule(name, pair)
    return body


PASS = Factorize
