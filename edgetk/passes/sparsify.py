"""N:M sparsity: of every M consecutive weights of an output of a linear layer, N stay.

Sources: 2:4 and its tensor cores, Mishra et al. 2021, arXiv:2104.08378; weights by what they are multiplied with, Wanda, Sun
et al. 2023, arXiv:2306.11695; by the loss to first order, Molchanov et al. 2019, arXiv:1906.10771.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError, closest
from edgetk.passes.finetune import Finetune

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgetk.core.target import Target

CRITERIA = ("magnitude", "activations", "taylor")
#: GPU generations whose tensor cores skip the zeros of 2:4
SPARSE_CORES = ("Ampere", "Ada", "Hopper", "Blackwell")


@dataclass(frozen=True)
class Sparsify:
    """Zeros in a pattern, nothing else: shapes, files and most runtimes stay as they are.

    Zeros stay zeros in every later pass: fine-tuning does not move them, and what else changes weights is followed by a
    projection to the pattern (`settle`). In int8 they are the code 0.
    """

    #: weights that stay of each `m`, at least 1 and below m
    n: int = 2
    #: consecutive weights of an output that are looked at together
    m: int = 4
    #: what stays: "magnitude" |w|; "activations" |w| times the root mean square of its input; "taylor" (g w)^2
    criterion: str = "magnitude"
    #: names or name endings of the layers; empty: all that are large enough
    layers: tuple[str, ...] = ()
    #: names or name endings of layers that stay dense
    keep_dense: tuple[str, ...] = ("head",)
    #: smaller layers stay dense
    min_weights: int = 16384
    #: inputs that activations are taken on, or examples that gradients are
    calibration: int = 96
    #: settings of finetune, for training before the pass is judged, such as {"epochs": 5}; empty: none
    train: Mapping[str, Any] = field(default_factory=dict)

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise RecipeError(f"sparsify: n must be in [1, m - 1], got {self.n} of {self.m}; correct the recipe")
        if self.criterion not in CRITERIA:
            raise RecipeError(
                f"sparsify: criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}; correct the recipe"
            )
        if min(self.calibration, self.min_weights) < 1:
            raise RecipeError(
                f"sparsify: calibration and min_weights must be at least 1, got {self.calibration} and {self.min_weights}; "
                "correct the recipe"
            )
        known = {f.name: type(f.default) for f in fields(Finetune)}
        for key, value in self.train.items():
            if key not in known:
                raise RecipeError(f"sparsify: train must name settings of finetune, got {key!r}; {closest(key, known)}")
            if type(value) is not known[key] and (type(value), known[key]) != (int, float):
                raise RecipeError(
                    f"sparsify: train.{key} must be what finetune takes ({known[key].__name__}), got {value!r}; "
                    "correct the recipe"
                )
        Finetune(**self.train)

    def check(self, bundle: Bundle) -> None:
        """There must be a plain linear layer to work on, and the data that the criterion needs."""
        from edgetk.passes._importance import require_gradients
        from edgetk.passes._statistics import require_data

        if not self._layers(bundle.module):
            which = f"one of {', '.join(self.layers)}" if self.layers else f"at least {self.min_weights} weights"
            raise PreconditionError(
                f"sparsify: needs a plain linear layer of {which} in {bundle.name}, got none; "
                "correct layers or lower min_weights"
            )
        if self.criterion == "activations":
            require_data(bundle, "sparsify")
        require_gradients(bundle, self.criterion, "sparsify")
        if self.train:
            Finetune(**self.train).check(bundle)

    def __call__(self, bundle: Bundle) -> PassResult:
        import torch

        from edgetk.models.layers.sparse_pattern import largest_of, mark

        body = bundle.module
        names = self._layers(body)
        scores = self._scores(bundle, names)
        lost = {}
        with torch.no_grad():
            for name in names:
                layer: Any = body.get_submodule(name)
                before = layer.weight.square().sum()
                layer.weight.mul_(largest_of(scores[name], self.n, self.m))
                lost[name] = round(1 - float(layer.weight.square().sum() / before.clamp_min(1e-30)), 6)
                mark(layer, self.n, self.m)
        weights = list(_weights(body, names).values())
        count, left = sum(w.numel() for w in weights), sum(int(w.count_nonzero()) for w in weights)
        notes = {
            "pattern": f"{self.n}:{self.m}",
            "layers": len(names),
            "weights": count,
            "nonzero": left,
            "lost_energy": lost,
            "bytes_as_stored": 4 * count,
            "bytes_packed": -(-left * (32 + math.ceil(math.log2(self.m))) // 8),
            "speed": speed(bundle.target, self.n, self.m),
        }
        if self.train:
            notes["training"] = dict(Finetune(**self.train)(bundle).notes)
        return PassResult(body, True, notes, {"n": self.n, "m": self.m, "layers": names})

    def _layers(self, body: nn.Module) -> list[str]:
        from torch import nn

        def named(name: str, wanted: tuple[str, ...]) -> bool:
            return any(name == w or name.endswith(f".{w}") for w in wanted)

        return [
            name
            for name, layer in body.named_modules()
            if type(layer) is nn.Linear
            and layer.in_features >= self.m
            and (named(name, self.layers) if self.layers else layer.weight.numel() >= self.min_weights)
            and not named(name, self.keep_dense)
        ]

    def _scores(self, bundle: Bundle, names: list[str]) -> dict[str, Tensor]:
        """What each weight counts, for each layer (out, in)."""
        from edgetk.passes._fisher import gradients
        from edgetk.passes._statistics import collect

        weights = _weights(bundle.module, names)
        if self.criterion == "taylor":
            total = {name: w.detach().new_zeros(w.shape) for name, w in weights.items()}
            for found in gradients(bundle, list(weights.values()), self.calibration):
                for name, gradient in zip(names, found, strict=True):
                    total[name] += (gradient * weights[name].detach()).square()
            return total
        scores = {name: w.detach().abs() for name, w in weights.items()}
        if self.criterion == "activations":
            assert bundle.data is not None
            moments = collect(bundle, names, bundle.data.calibration(self.calibration))
            scores = {name: s * moments[name].second.diagonal()[:-1].sqrt().to(s.dtype) for name, s in scores.items()}
        return scores

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Mark the same layers; the weights, with their zeros, come afterwards."""
        from edgetk.models.layers.sparse_pattern import mark

        for name in structure["layers"]:
            mark(body.get_submodule(name), structure["n"], structure["m"])
        return body


def _weights(body: nn.Module, names: list[str]) -> dict[str, Tensor]:
    layers: dict[str, Any] = {name: body.get_submodule(name) for name in names}
    return {name: layer.weight for name, layer in layers.items()}


def speed(target: Target | None, n: int, m: int) -> str:
    """What the zeros are good for on a target, in words for the report."""
    dense = "stored dense, with its zeros: no smaller a file and no faster a product"
    if (n, m) != (2, 4):
        return f"{dense}; no runtime that edgetk exports for has kernels for {n}:{m}"
    if target is None:
        return f"{dense} but on NVIDIA tensor cores from Ampere on"
    if target.stack.runtime != "tensorrt" or not any(core in target.core for core in SPARSE_CORES):
        return f"{dense} on {target.name} ({target.stack.name})"
    return (
        f"stored dense, with its zeros; TensorRT is told to look for them (--sparsity=enable) and uses the tensor cores of "
        f"{target.core}, which skip the zeros of 2:4 in float16 and int8, where it finds that faster; not predicted here"
    )


PASS = Sparsify
