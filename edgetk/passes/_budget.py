"""Factorization of chosen layers to a common share of their bits or multiply-accumulates: `factorize` with a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult, TrainingData
from edgetk.core.errors import PreconditionError
from edgetk.models.layers.dense_sparse import fill, install, plan
from edgetk.models.layers.dense_sparse_sizes import FLOAT, Group, most_nonzeros, svd_rank
from edgetk.models.layers.observe import inputs_of
from edgetk.passes import _dictionary as dictionaries
from edgetk.passes._fisher import row_information
from edgetk.passes._least_squares import RIDGE, TINY, low_rank
from edgetk.passes._statistics import Moments, collect
from edgetk.passes._straight_through import matrix_of
from edgetk.tasks.training.tuning import resolve

if TYPE_CHECKING:
    from edgetk.passes.factorize import Factorize

#: shares of the shorter axis that a dictionary may have, and what a number of atoms is a multiple of
LEVELS, MULTIPLE = (0.25, 1 / 3, 0.5, 2 / 3, 5 / 6, 1.0), 8
#: alternations after which sizes are compared
TRIAL_ROUNDS = 3


def check(settings: Factorize, bundle: Bundle, names: Sequence[str]) -> None:
    """Raise PreconditionError where there is nothing to factorize, or a budget is no saving."""
    if not names:
        which = f"one of {', '.join(settings.layers)}" if settings.layers else f"at least {settings.min_weights} weights"
        raise PreconditionError(
            f"factorize: needs a linear layer of {which} in {bundle.name}, got none; correct layers or lower min_weights"
        )
    if settings.method == "fwsvd" and not isinstance(bundle.data, TrainingData):
        raise PreconditionError(
            f"factorize: fwsvd needs training data, for its gradients, got none for {bundle.name}; use svd or give --data"
        )
    if (ratio := _ratio(settings, bundle.module, names)) <= 1.0:
        kind, value = next(iter(settings.budget.items()))
        raise PreconditionError(
            f"factorize: a budget must be below what the {len(names)} layers have now, got {value:g} {kind} "
            f"(ratio {ratio:.3g}); lower it"
        )


def factorize(settings: Factorize, bundle: Bundle, names: Sequence[str]) -> PassResult:
    """Every layer of `names` factorized within the budget, in the bundle's own body."""
    assert bundle.data is not None
    inputs = bundle.data.calibration(settings.calibration)
    moments = collect(bundle, list(names), inputs)
    if settings.method == "dense-sparse":
        return _dense_sparse(settings, bundle, names, inputs, moments)
    return _low_rank(settings, bundle, names, moments)


def _ratio(settings: Factorize, body: Any, names: Sequence[str]) -> float:
    """The budget as the ratio of now to then."""
    kind, value = next(iter(settings.budget.items()))
    weights = sum(body.get_submodule(name).weight.numel() for name in names)
    now = {"ratio": value * value, "bytes": weights * FLOAT / 8, "macs": float(weights)}
    return float(now[kind] / value)


def _low_rank(settings: Factorize, bundle: Bundle, names: Sequence[str], moments: Mapping[str, Moments]) -> PassResult:
    from edgetk.passes.factorize import split_layers

    body, ratio = bundle.module, _ratio(settings, bundle.module, names)
    information = row_information(bundle, names, settings.calibration) if settings.method == "fwsvd" else {}
    ranks, factors, errors = {}, {}, {}
    for name in names:
        layer: Any = body.get_submodule(name)
        weight = layer.weight.detach()
        ranks[name] = max(1, svd_rank(weight.shape[1], weight.shape[0], ratio))
        if settings.method == "fwsvd":
            u, v = _weighted_pair(weight.double(), information[name])
        elif settings.activations:
            u, v, _ = low_rank(weight, moments[name], layer.bias is not None)
        else:
            u, v = _weighted_pair(weight.double(), torch.ones(weight.shape[1], dtype=torch.float64))
        factors[name] = (u, v, None, moments[name].mean)
        k = ranks[name]
        errors[name] = round(float((weight - u[:, :k] @ v[:k]).norm() / weight.norm().clamp_min(TINY)), 6)
    shapes = [_shape(body, name) for name in names]
    weights = sum(ranks[name] * (a + b) for name, (a, b) in zip(names, shapes, strict=True))
    before = sum(a * b for a, b in shapes)
    notes = {"ranks": ranks, "relative_error": errors, **_totals(before, weights * FLOAT, weights * FLOAT, weights)}
    return PassResult(split_layers(body, ranks, factors), True, notes, {"ranks": ranks})


def _shape(body: Any, name: str) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer."""
    layer = body.get_submodule(name)
    return int(layer.out_features), int(layer.in_features)


def _weighted_pair(weight: Tensor, information: Tensor) -> tuple[Tensor, Tensor]:
    """U, V of all ranks for weight (out, in) whose input rows matter as `information` (in,) says."""
    scale = information.clamp_min(TINY).sqrt()
    u, s, v = torch.linalg.svd(weight * scale, full_matrices=False)
    root = s.sqrt()
    return u * root, root[:, None] * v / scale


def _dense_sparse(
    settings: Factorize, bundle: Bundle, names: Sequence[str], inputs: Tensor, moments: Mapping[str, Moments]
) -> PassResult:
    body = bundle.module
    ratio = _ratio(settings, body, names)
    sharing = _sharing(bundle, names, inputs) if settings.share else [(name,) for name in names]
    by_macs = "macs" in settings.budget
    sizes: dict[tuple[Any, ...], Group] = {}
    found: list[tuple[Group, dictionaries.Factors]] = []
    tried: dict[str, dict[str, float]] = {}
    for layers in sharing:
        draft = plan(body, layers, 1.0001, rank=1)  # for its orientation only
        kind = (draft.side, draft.short, draft.lines, layers[0].rpartition(".")[2])
        problem = _Problem(settings, body, draft, moments)
        if kind not in sizes:
            errors = {group: problem.error(group) for group in _candidates(draft, ratio, settings.grouped, by_macs)}
            if not errors:
                raise PreconditionError(
                    f"factorize: {', '.join(layers)} must have room for a coefficient a line at ratio {ratio:.3g}, got none; "
                    "raise the budget or leave the layer out"
                )
            sizes[kind] = min(errors, key=lambda group: errors[group])
            tried[", ".join(layers)] = {f"{g.rank}, {g.nonzeros}": round(e, 6) for g, e in errors.items()}
        best = sizes[kind]
        group = Group(layers, best.side, best.short, best.lines, best.rank, best.nonzeros, best.grouped)
        found.append((group, problem.solve(group, settings.rounds)))
    errors_of = {}
    for group, factors in found:
        dense = matrix_of(body, group)
        lost = dense - factors.product()
        biases = [_bias(body.get_submodule(name), moments[name]) for name in group.layers]
        install(body, [group])
        fill(body, group, factors.dictionary, *dictionaries.lines(factors.coefficients, group.nonzeros, group.grouped))
        _set_biases(body, group, biases, lost)
        errors_of[", ".join(group.layers)] = round(float(lost.norm() / dense.norm().clamp_min(TINY)), 6)
    groups = [group for group, _ in found]
    total = _totals(
        sum(g.short * g.lines for g in groups),
        sum(g.bits() for g in groups),
        sum(g.bits(indices=False) for g in groups),
        sum(g.macs for g in groups),
    )
    notes = {
        "sizes": {", ".join(g.layers): {"rank": g.rank, "nonzeros": g.nonzeros} for g in groups},
        "relative_error": errors_of,
        "tried": tried,
        **total,
    }
    return PassResult(body, True, notes, {"groups": [group.to_json() for group in groups]})


def _totals(weights: int, bits: int, bits_without_indices: int, macs: int) -> dict[str, Any]:
    """What the report says of all factors together: bits with and without indices, and MACs of an input vector."""
    return {
        "bytes_before": weights * FLOAT // 8,
        "bytes_after": -(-bits // 8),
        "ratio": round(weights * FLOAT / bits, 4),
        "ratio_without_indices": round(weights * FLOAT / bits_without_indices, 4),
        "macs_before": weights,
        "macs_after": macs,
    }


def _candidates(draft: Group, ratio: float, grouped: bool, by_macs: bool) -> Iterator[Group]:
    """Sizes within the budget: a few numbers of atoms, each with the most non-zeros."""
    short, lines = draft.short, draft.lines
    ranks = sorted({max(1, int(short * level) // MULTIPLE * MULTIPLE or int(short * level)) for level in LEVELS})
    if short > 256:
        ranks = sorted({*ranks, 256})  # the most atoms that a byte can name
    for rank in ranks:
        if by_macs:
            most = int((short * lines / ratio - short * rank) / lines)
            s = max((k for k in range(1, most + 1) if rank % k == 0), default=0) if grouped else min(most, rank)
        else:
            s = most_nonzeros(short, lines, rank, ratio, grouped)
        if s >= 1:
            yield Group(draft.layers, draft.side, short, lines, rank, s, grouped)


class _Problem:
    """The matrices of a group in the metric in which they are to be approximated."""

    def __init__(self, settings: Factorize, body: Any, draft: Group, moments: Mapping[str, Moments]) -> None:
        self.matrix = matrix_of(body, draft)
        self.grouped = settings.grouped
        self.factor: Tensor | None = None  # L^T of the metric of the short axis
        self.metric: Tensor | None = None  # of the long axis
        if settings.activations:
            first = draft.layers[0]
            known = moments[first]
            biased = all(body.get_submodule(name).bias is not None for name in draft.layers)
            metric = known.covariance if biased else known.second[:-1, :-1]
            mean = metric.diagonal().mean().clamp_min(TINY)
            metric = metric / mean + RIDGE * torch.eye(len(metric), dtype=metric.dtype)
            if draft.side == "outputs":
                self.factor = torch.linalg.cholesky(metric).T.to(self.matrix.dtype)
            else:
                self.metric = metric.to(self.matrix.dtype)
        device = resolve(settings.device)
        self.target = (self.matrix if self.factor is None else self.factor @ self.matrix).to(device)
        self.metric = None if self.metric is None else self.metric.to(device)

    def error(self, group: Group) -> float:
        """Relative error in the metric after a few rounds."""
        found = self._learn(group, TRIAL_ROUNDS)
        lost = self.target - found.product()
        if self.metric is None:
            return float(lost.norm() / self.target.norm().clamp_min(TINY))
        energies = [((part @ self.metric) * part).sum() for part in (lost, self.target)]
        return float((energies[0] / energies[1].clamp_min(TINY)).sqrt())

    def solve(self, group: Group, rounds: int) -> dictionaries.Factors:
        """D and S of the matrices as they are."""
        learned = self._learn(group, rounds)
        found = dictionaries.Factors(learned.dictionary.cpu(), learned.coefficients.cpu())
        if self.factor is None:
            return found
        dictionary = torch.linalg.solve_triangular(self.factor, found.dictionary, upper=True)
        return dictionaries.normalised(dictionaries.Factors(dictionary, found.coefficients))

    def _learn(self, group: Group, rounds: int) -> dictionaries.Factors:
        return dictionaries.learn(self.target, group.rank, group.nonzeros, rounds, self.grouped, self.metric)


def _sharing(bundle: Bundle, names: Sequence[str], inputs: Tensor) -> list[tuple[str, ...]]:
    """The layers in groups that read one tensor, seen while the model runs; tall together, they stay apart."""
    seen: dict[int, list[str]] = {}
    body = bundle.module
    with _kept_inputs(body, names, seen), torch.inference_mode():
        bundle.predict()(inputs[:1])
    groups: list[tuple[str, ...]] = []
    for layers in seen.values():
        shapes = [_shape(body, name) for name in layers]
        wide = sum(shape[0] for shape in shapes) >= shapes[0][1]
        groups += [tuple(layers)] if wide else [(name,) for name in layers]
    never = set(names) - {name for group in groups for name in group}
    return [*groups, *((name,) for name in names if name in never)]


@contextmanager
def _kept_inputs(body: Any, names: Sequence[str], seen: dict[int, list[str]]) -> Iterator[None]:
    """Within the block `seen` gets the layers by the tensor they read; tensors are kept alive, so that none is mistaken."""
    alive: list[Tensor] = []

    def taker(name: str) -> Any:
        def take(x: Tensor) -> None:
            alive.append(x)
            group = seen.setdefault(id(x), [])
            if all(name not in other for other in seen.values()):
                group.append(name)

        return take

    with inputs_of(body, {name: taker(name) for name in names}):
        yield
    for key in [key for key, group in seen.items() if not group]:
        del seen[key]


def _bias(layer: Any, moments: Moments) -> tuple[Tensor, Tensor] | None:
    return None if layer.bias is None else (layer.bias.detach(), moments.mean)


def _set_biases(body: Any, group: Group, biases: Sequence[tuple[Tensor, Tensor] | None], lost: Tensor) -> None:
    """The mean of what is lost goes into the bias, where there is one. lost (short, lines)."""
    weight = lost.T if group.side == "outputs" else lost  # (m, n)
    begin = 0
    for name, known in zip(group.layers, biases, strict=True):
        layer: Any = body.get_submodule(name)
        end = begin + layer.out_features
        if known is not None:
            bias, mean = known
            with torch.no_grad():
                layer.bias.copy_(bias.double() + weight[begin:end].double() @ mean)
        begin = end
