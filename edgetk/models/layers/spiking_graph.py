"""A spiking network as plain data: products, neurons, delays and scales, and which output goes into which input.

It is what a module's `spiking_graph()` gives, so that exporters of spiking formats need to know no module. Everything happens
within one step except delays, which are whole steps; what several sources send to one node adds up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from edgetk.core.errors import PreconditionError
from edgetk.models.layers.lif import BETA, NormedLIF
from edgetk.models.layers.norm import Sign
from edgetk.models.layers.qdq import CODES, dequantize_weight
from edgetk.models.layers.quantized import InputQuantizer, LowRank, QuantLinear

#: name of the node that features come from
INPUT = "input"

#: what a layer reads: spikes of 0 and 1, features on entry, or any other numbers
Reads = Literal["spikes", "features", "numbers"]


@dataclass(frozen=True, eq=False)
class Product:
    """y = W x + b. `weight` (out, in), `bias` (out,) or None; `scale` (out,) where each row is 8-bit codes times its scale."""

    weight: Tensor
    bias: Tensor | None = None
    scale: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Neurons:
    """h = decay v + (1 - decay) x; a spike where h >= threshold, v = rest after one, else h. `threshold` and `rest` are (C,).

    v starts at `rest`. `module` is the path of the module that computes them: its outputs are the spikes and the next v.
    """

    threshold: Tensor
    rest: Tensor
    decay: float
    module: str


@dataclass(frozen=True, eq=False)
class Delay:
    """y(t) = x(t - steps), channel by channel, 0 before the first step. `steps` (C,) are whole numbers of at least 1, or 0."""

    steps: Tensor


@dataclass(frozen=True, eq=False)
class Scale:
    """y = factor x, channel by channel. `factor` (C,)."""

    factor: Tensor


Node = Product | Neurons | Delay | Scale


@dataclass(frozen=True)
class Rounding:
    """Features are rounded to multiples of `step` (half to even) within [low, high]."""

    step: float
    low: float
    high: float


@dataclass(frozen=True)
class SpikingGraph:
    """The network of a stream that runs from its first step on, with nothing but zeros before it.

    width     features of one step, what the node `INPUT` sends
    nodes     by name; `edges` are pairs of names
    output    the node that gives class scores of each step; the decision after a step is their mean over all steps so far
    rounding  what is done to features before they enter, in this order
    body      the module that computes the same: a copy, where something had to be folded first; `folded` names what
    state     of that module at the start of such a stream, batch 1
    """

    width: int
    nodes: dict[str, Node]
    edges: tuple[tuple[str, str], ...]
    output: str
    rounding: tuple[Rounding, ...]
    body: nn.Module
    state: tuple[Tensor, ...]
    folded: tuple[str, ...] = ()


@dataclass
class Wiring:
    """Collects nodes and edges from layers. Each method adds nodes behind its `sources`, whose outputs add up, and names them.

    Raises PreconditionError for a layer that plain nodes cannot express.
    """

    who: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, node: Node, *sources: str) -> str:
        assert name not in self.nodes, f"{name} is there already"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def layer(self, name: str, layer: nn.Module, *sources: str, reads: Reads = "spikes") -> str:
        """A linear layer in any of its forms."""
        if isinstance(layer, LowRank):
            down = self.layer(f"{name}_down", layer.down, *sources, reads=reads)
            return self.layer(f"{name}_up", layer.up, down, reads="numbers")
        return self.add(name, self._product(name, layer, reads), *sources)

    def window(self, name: str, layer: nn.Module, source: str, taps: int, reads: Reads = "spikes") -> tuple[str, ...]:
        """A linear layer over the last `taps` steps of one source, oldest first: as many products, to be added."""
        if isinstance(layer, LowRank):
            down = self.window(f"{name}_down", layer.down, source, taps, reads)
            return (self.layer(f"{name}_up", layer.up, *down, reads="numbers"),)
        whole = self._product(name, layer, reads)
        parts = whole.weight.chunk(taps, dim=1)
        made = []
        for age, part in enumerate(reversed(parts)):
            before = self.delay(source, age, part.shape[1]) if age else source
            product = Product(part.contiguous(), None if age else whole.bias, whole.scale)
            made.append(self.add(f"{name}_{age}", product, before))
        return tuple(made)

    def delay(self, source: str, steps: int, width: int) -> str:
        """The same delay of the same source is one node, whoever reads it."""
        name = f"{source}_delay{steps}"
        if name not in self.nodes:
            self.add(name, Delay(torch.full((width,), steps)), source)
        return name

    def neurons(self, name: str, unit: NormedLIF, module: str, *sources: str) -> str:
        """Neurons whose norm has been folded. `module` is the path of `unit`."""
        if isinstance(unit.norm, Sign):
            sources = (self.add(f"{name}_sign", Scale(unit.norm.sign.detach()), *sources),)
        elif not isinstance(unit.norm, nn.Identity):
            raise PreconditionError(
                f"{self.who}: the norm in front of {module} must fold into thresholds, got a scale next to zero; "
                "prune that channel or fine-tune the model"
            )
        neuron = unit.neuron
        made = Neurons(neuron.threshold.detach(), neuron.rest.detach(), BETA, f"{module}.neuron")
        return self.add(name, made, *sources)

    def _product(self, name: str, layer: nn.Module, reads: Reads) -> Product:
        if isinstance(layer, QuantLinear):
            if reads == "numbers":
                raise PreconditionError(
                    f"{self.who}: what layer {name} reads must stay as it is, got numbers rounded to 8 bits; "
                    "leave out factorize, or keep that layer float"
                )
            # what a spike is after rounding; 0 stays 0 in every code
            one = layer.input(torch.tensor(1.0)) if reads == "spikes" else torch.tensor(1.0)
            bias = layer.bias.detach() if layer.bias is not None and bool(layer.bias.any()) else None
            return Product(dequantize_weight(layer.weight, layer.scale) * one, bias, layer.scale * one)
        if type(layer) is nn.Linear:
            return Product(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
        raise PreconditionError(
            f"{self.who}: layer {name} must be linear, factorized or quantized, got {type(layer).__name__}; "
            "leave out the pass that made it"
        )


def rounding_of(layer: nn.Module) -> tuple[Rounding, ...]:
    """What a quantized first layer does to features; nothing where it is not quantized."""
    quantizer = getattr(layer, "input", None)
    if not isinstance(quantizer, InputQuantizer):
        return ()
    _, low, high = CODES[quantizer.dtype]
    step, zero = float(quantizer.scale), int(quantizer.zero_point)
    return (Rounding(step, step * (low - zero), step * (high - zero)),)
