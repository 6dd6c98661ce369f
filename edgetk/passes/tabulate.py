"""Look-up tables in the place of matrices: chosen layers become memory layers, fitted, distilled one by one, then together."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError, RecipeError, closest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgetk.models.layers.memory_layer import MemoryLayer
    from edgetk.passes._table_costs import Place
    from edgetk.tasks.training.loop import Schedule

#: share of the rows that a layer is judged on, and not fitted to
HELD_OUT = 0.2


@dataclass(frozen=True)
class Tabulate:
    """Replace layers by tables of rows that a token chooses by its signs.

    Source: MemoryFormer, Ding et al. 2024, arXiv:2411.12992, which trains them from scratch. Tables fitted afterwards are
    lossy: this pass fits each layer by least squares to what the original gave on calibration inputs, with the layers before
    it already replaced, distils it by gradient, and trains the whole model on with the original as teacher.

    A table layer has about 1 / bits of the arithmetic and 2^bits / bits times the entries of a matrix. The pass says no where
    the board cannot hold them, and leaves layers dense where the kernel is predicted to lose to the dense int8 layer.
    """

    #: names or whole parts of names of linear layers; empty: all that are large enough, or none where modules are named
    layers: tuple[str, ...] = ()
    #: names of whole modules, such as feed-forward parts, that read one tensor (…, d) and give one (…, h): one table layer each
    modules: tuple[str, ...] = ()
    #: the same for layers that stay
    keep: tuple[str, ...] = ("head",)
    #: coordinates that choose a row; must divide a layer's inputs
    bits: int = 4
    #: how much a row counts: "p" as published, "l1p", "l1" or "one"
    weighting: str = "p"
    temperature: float = 1.0
    #: linear layers with fewer weights stay as they are
    min_weights: int = 16384
    #: False: replace layers also where the kernel is predicted to be slower than the dense int8 layer
    must_pay: bool = True
    #: inputs that layers are fitted on, and the most rows of each that are used
    calibration: int = 96
    rows: int = 8192
    #: least squares: steps of conjugate gradients, and ridge as a share of the mean of the diagonal
    iterations: int = 30
    ridge: float = 1e-3
    #: distillation of each layer: epochs over its rows, and rate
    layer_epochs: int = 10
    layer_lr: float = 3e-3
    #: epochs of training of the whole model; 0 leaves that to finetune
    epochs: int = 20
    batch: int = 128
    #: highest learning rate, half a cosine brings it to zero; that of tables is `table_rate` times as high
    lr: float = 5e-4
    table_rate: float = 3.0
    weight_decay: float = 0.05
    #: "bce" or "ce", as the model was trained with
    loss: str = "bce"
    #: share of the original model's outputs in the targets, in [0, 1]
    distill: float = 0.5
    #: decay of the average of the weights that is evaluated
    average: float = 0.998
    #: name of the task's augmentation; "none" leaves inputs as they are
    augment: str = "none"
    #: "auto" takes a GPU where there is one
    device: str = "auto"
    seed: int = 0

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        from edgetk.models.layers.memory_hash import MAX_BITS, WEIGHTINGS

        if self.weighting not in WEIGHTINGS:
            raise RecipeError(
                f"tabulate: weighting must be one of {', '.join(WEIGHTINGS)}, got {self.weighting!r}; correct the recipe"
            )
        if not 1 <= self.bits <= MAX_BITS or not self.temperature > 0 or not self.ridge >= 0:
            raise RecipeError(
                f"tabulate: bits must be in [1, {MAX_BITS}], temperature above 0 and ridge at least 0, "
                f"got {self.bits}, {self.temperature} and {self.ridge}; correct the recipe"
            )
        for name, least in (("calibration", 1), ("rows", 10), ("iterations", 1), ("layer_epochs", 0), ("epochs", 0)):
            if getattr(self, name) < least:
                raise RecipeError(f"tabulate: {name} must be at least {least}, got {getattr(self, name)}; correct the recipe")
        self._schedule()

    def _schedule(self) -> Schedule:
        from edgetk.tasks.training.loop import Schedule

        return Schedule(
            epochs=max(self.epochs, 1), batch=self.batch, lr=self.lr, table_rate=self.table_rate, betas=(0.9, 0.999),
            weight_decay=self.weight_decay, decoupled=True, shape="cosine", loss=self.loss, average=self.average,
            distill=self.distill, seed=self.seed,
        )  # fmt: skip

    def check(self, bundle: Bundle) -> None:
        """There must be data, layers that tables can stand for, room for the tables, and a layer for which they pay."""
        from edgetk.passes._statistics import require_data

        require_data(bundle, "tabulate")
        if self.epochs:
            from edgetk.tasks.training.tuning import require

            require("tabulate", bundle, self.augment, self.distill)
        self._places(bundle)

    def __call__(self, bundle: Bundle) -> PassResult:
        from edgetk.passes._statistics import output_change

        assert bundle.data is not None
        places, dense = self._places(bundle)
        body, before = bundle.module, copy.deepcopy(bundle.module).eval()
        inputs = bundle.data.calibration(self.calibration)
        change = output_change(bundle, inputs)
        fitted: dict[str, Any] = {}
        for place in places:
            made, errors = self._fit(body, before, place, inputs)
            body.set_submodule(place.name, made)
            fitted[place.name] = {**place.notes(), "unexplained_variance": errors}
        notes: dict[str, Any] = {"layers": fitted, "kept_dense": dense, "output_change": change.of(bundle.predict())}
        if self.epochs:
            from edgetk.tasks.training.tuning import tune

            notes["fine_tuning"] = tune(body, bundle, self._schedule(), self.augment, self.device)
            notes["output_change_after_training"] = change.of(bundle.predict())
        structure = {
            place.name: {
                "inputs": place.inputs,
                "outputs": place.outputs,
                "bits": self.bits,
                "weighting": self.weighting,
                "temperature": self.temperature,
            }
            for place in places
        }
        return PassResult(body.eval(), True, notes, structure)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Put fresh tables in the same places; their entries come afterwards."""
        from edgetk.models.layers.memory_layer import MemoryLayer

        for name, options in structure.items():
            body.set_submodule(name, MemoryLayer(**options, centred=True))
        return body

    def _fit(self, body: nn.Module, before: nn.Module, place: Place, inputs: Tensor) -> tuple[MemoryLayer, dict[str, float]]:
        """A layer's tables, and the share of its outputs' variance that they miss on rows they were not fitted to."""
        from edgetk.models.layers.memory_layer import MemoryLayer
        from edgetk.passes import _table_fit as fit
        from edgetk.passes._table_costs import record

        x, _ = record(body, place.name, inputs, self.rows)
        _, y = record(before, place.name, inputs, self.rows)
        cut = max(1, int(len(x) * (1 - HELD_OUT)))
        made = MemoryLayer(
            place.inputs, place.outputs, self.bits, self.weighting, self.temperature,  # type: ignore[arg-type]
            centred=True, who=f"tabulate: {place.name}",
        )  # fmt: skip
        fit.centre_on(made, x[:cut])
        fit.least_squares(made, x[:cut], y[:cut], self.ridge, self.iterations)
        errors = {"least_squares": fit.relative_error(made, x[cut:], y[cut:])}
        if self.layer_epochs:
            kept = copy.deepcopy(made)
            fit.distil(made, x[:cut], y[:cut], self.layer_epochs, self.layer_lr)
            errors["distilled"] = fit.relative_error(made, x[cut:], y[cut:])
            if errors["distilled"] > errors["least_squares"]:
                made = kept
        return made, errors

    def _places(self, bundle: Bundle) -> tuple[list[Place], dict[str, str]]:
        """The layers that become tables, in the order they are called, and why others stay. Raises PreconditionError."""
        from edgetk.passes._table_costs import Costs, places, require_room

        found = places(bundle, self._names(bundle), self.bits)
        dense: dict[str, str] = {}
        if self.must_pay and bundle.target is not None and (costs := Costs.of(bundle.target)) is not None:
            dense = {p.name: slower for p in found if (slower := costs.slower(p)) is not None}
            if len(dense) == len(found):
                texts = "; ".join(f"{name}: {text}" for name, text in list(dense.items())[:3])
                raise PreconditionError(
                    f"tabulate: a look-up must be predicted to take less time than the dense int8 layer on "
                    f"{bundle.target.name}, got {texts}; set must_pay to false or leave tabulate out"
                )
        chosen = [p for p in found if p.name not in dense]
        require_room(bundle, chosen)
        return chosen, dense

    def _names(self, bundle: Bundle) -> list[str]:
        from torch import nn

        body = bundle.module
        exact = getattr(body, "exact_sums", False)
        spiking = set(body.spike_driven()) if hasattr(body, "spike_driven") else set()  # type: ignore[operator]
        linears = {name: m for name, m in body.named_modules() if type(m) is nn.Linear and name not in spiking and not exact}
        every = [name for name, _ in body.named_modules() if name]
        for pattern in self.layers:
            if not any(_matches(name, pattern) for name in linears):
                raise PreconditionError(
                    f"tabulate: layers must name linear layers, got {pattern!r}; {closest(pattern, linears)}"
                )
        for name in self.modules:
            if name not in every:
                raise PreconditionError(f"tabulate: modules must name modules, got {name!r}; {closest(name, every)}")
        names = list(self.modules)
        if self.layers:
            names += [name for name in linears if any(_matches(name, p) for p in self.layers)]
        elif not self.modules:
            fitting = {n: m for n, m in linears.items() if m.in_features % self.bits == 0}
            names += [name for name, m in fitting.items() if m.weight.numel() >= self.min_weights]
        names = [name for name in names if not any(_matches(name, pattern) for pattern in self.keep)]
        if not names:
            raise PreconditionError(
                f"tabulate: needs a linear layer of at least {self.min_weights} weights whose inputs are a multiple of "
                f"{self.bits}, got none in {bundle.name}; name layers, lower min_weights or leave tabulate out"
            )
        return names


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern is the name or some whole parts of it that follow one another."""
    return f".{pattern}." in f".{name}."


PASS = Tabulate
