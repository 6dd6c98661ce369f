"""Widths that save most work for the least change of a model's outputs: the search behind structured pruning."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.models.layers.exact import settle
from edgetk.models.layers.groups import Group, MemoryGroup, columns, delete
from edgetk.passes import _importance
from edgetk.passes._least_squares import Point, cheapest, eliminate, refit
from edgetk.passes._statistics import Collector, Moments, collect, output_change, run

#: widths are kept at multiples of this, which kernels like
MULTIPLE = 8
#: shares of a group's size that are tried
LEVELS = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)

#: group name -> kept channels (ascending), or the order of a memory
Plan = dict[str, Any]
#: group name -> width -> share of the outputs' variance that changes
Damage = dict[str, dict[int, float]]


class Search:
    """What pruning one model on some calibration inputs needs: elimination orders, damage of widths, the cut itself.

    `keep` are widths that may be asked for below the smallest that the search tries. `criterion` says which channels of a group
    go first: "least-squares", or one of `_importance`, on as many examples as there are inputs. Without `refit` readers keep
    the weights that they have (a memory's is refitted all the same).
    """

    def __init__(
        self,
        bundle: Bundle,
        inputs: Tensor,
        keep: Mapping[str, int] = MappingProxyType({}),
        criterion: str = "least-squares",
        refit: bool = True,
    ) -> None:
        self.bundle, self.inputs, self.refits = bundle, inputs, refit
        self.groups, self.memories = declared(bundle.module)
        self.moments = collect(bundle, [g.reader for g in self.groups], inputs)
        smallest = {g.name: min(MULTIPLE, g.size, keep.get(g.name, g.size)) for g in self.groups}
        if criterion == "least-squares":
            self.paths = {g.name: self._eliminated(g, smallest[g.name]) for g in self.groups}
        else:
            scores = _importance.channels(bundle, self.groups, criterion, len(inputs))
            self.paths = {name: _importance.ranked(each, smallest[name]) for name, each in scores.items()}
        self.lags = {m.name: lagged(bundle, m, inputs) for m in self.memories}

    def _eliminated(self, group: Group, smallest: int) -> list[Point]:
        reader: Any = self.bundle.module.get_submodule(group.reader)
        return eliminate(reader.weight.detach(), self.moments[group.reader], group.taps, smallest)

    @property
    def sizes(self) -> dict[str, int]:
        """Every group's width as it is."""
        return {g.name: g.size for g in self.groups} | {m.name: m.order for m in self.memories}

    def fixed(self, keep: Mapping[str, int]) -> Plan:
        """The plan that keeps the given widths, the channels chosen by elimination."""
        return {name: self._kept(name, width) for name, width in keep.items() if width < self.sizes[name]}

    def _kept(self, name: str, width: int) -> Any:
        return cheapest(self.paths[name], width) if name in self.paths else width

    def damage(self) -> Damage:
        """Change of the outputs for each group alone at each width."""
        change = output_change(self.bundle, self.inputs)
        table: Damage = {}
        for name, size in self.sizes.items():
            table[name] = {size: 0.0}
            for width in sorted({-(-int(size * level) // MULTIPLE) * MULTIPLE for level in LEVELS}, reverse=True):
                if 0 < width < size:
                    alone = replace(self.bundle, body=self.apply({name: self._kept(name, width)}))
                    table[name][width] = change.of(alone.predict())
        return table

    def plan(self, table: Damage, share: float) -> Plan | None:
        """The least damaging widths with at most `share` of the prunable work; None if the widths tried do not go so far.

        Damages add up, work is counted per channel: the price of work is raised until the cheapest widths are few enough.
        """
        whole = sum(self._work(name, size) for name, size in self.sizes.items())
        for price in torch.logspace(-7, 3, 200).tolist():
            chosen = {
                name: min(levels, key=lambda width: levels[width] + price * self._work(name, width) / whole)
                for name, levels in table.items()
            }
            if sum(self._work(name, width) for name, width in chosen.items()) <= share * whole:
                return {name: self._kept(name, width) for name, width in chosen.items() if width < self.sizes[name]}
        return None

    def _work(self, name: str, width: int) -> float:
        """Multiply-accumulates that hang on a group, per frame or, with `runs`, per input."""
        for group in self.groups:
            if group.name == name:
                # not every weight is a parameter: that of a frozen memory is a buffer
                paths = [piece.path for piece in group.producers if piece.path.endswith(".weight")]
                pieces = [operator.attrgetter(path)(self.bundle.module) for path in paths]
                reader: Any = self.bundle.module.get_submodule(group.reader)
                weights: int = sum(w.numel() for w in pieces if w.dim() > 1) + reader.weight.numel()
                return group.runs * width * weights / group.size
        memory = next(m for m in self.memories if m.name == name)
        reading: Any = self.bundle.module.get_submodule(memory.reader)
        return float(width * (width + 1) + width * reading.out_features)

    def apply(self, plan: Plan, final: bool = False) -> nn.Module:
        """A copy of the body with only what `plan` keeps, each reader refitted, unless `refits` says no.

        A candidate is refitted on the moments of the model as it came; the `final` one, group after group, on what then
        reaches each reader, which is a little better and takes a run over the inputs for every group.
        """
        body = copy.deepcopy(self.bundle.module)
        bundle = replace(self.bundle, body=body)
        with torch.no_grad():
            for memory in self.memories:
                if memory.name in plan:
                    weight, _ = memory.refit(body, plan[memory.name], self.lags[memory.name].second)
                    memory.resize(body, plan[memory.name])
                    reading: Any = body.get_submodule(memory.reader)
                    reading.weight.copy_(weight)
            for group in self.groups:
                if group.name in plan:
                    self._cut(bundle, group, plan[group.name], final)
        settle(body)
        return body

    def _cut(self, bundle: Bundle, group: Group, kept: list[int], final: bool) -> None:
        if not self.refits:
            delete(bundle.module, group, kept)
            return
        moments = collect(bundle, [group.reader], self.inputs)[group.reader] if final else self.moments[group.reader]
        reader: Any = bundle.module.get_submodule(group.reader)
        weight, bias = refit(reader.weight, reader.bias, moments, columns(group, kept))
        delete(bundle.module, group, kept)
        reader.weight.copy_(weight)
        if bias is not None:
            reader.bias.copy_(bias)


def declared(body: nn.Module) -> tuple[tuple[Group, ...], tuple[MemoryGroup, ...]]:
    """The groups and memories that a module says can be made smaller."""
    groups: tuple[Group, ...] = body.groups()  # type: ignore[operator]
    memories: tuple[MemoryGroup, ...] = body.memory_groups() if hasattr(body, "memory_groups") else ()  # type: ignore[operator]
    return groups, memories


def lagged(bundle: Bundle, memory: MemoryGroup, inputs: Tensor) -> Moments:
    """Moments of what the memory's reader sees, with the memory replaced by the samples it was made from."""
    collector = Collector()
    with memory.observed(bundle.module, collector.add), torch.inference_mode():
        run(bundle, inputs)
    return collector.moments()
