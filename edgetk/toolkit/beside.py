"""What a spiking model is set beside: the model of the zoo that does the same without spikes, in float32 and in int8."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.figures import Score
from edgetk.toolkit import cost, source

#: what of an energy is compared
KEYS = (
    "joules", "joules_dense_reads", "arithmetic_joules", "memory_joules", "accumulates", "multiply_accumulates",
    "neuron_updates", "rates_from",
)  # fmt: skip
#: precision -> passes, each with its default settings
VERSIONS: Mapping[str, tuple[str, ...]] = {"float32": ("fold",), "int8": ("fold", "quantize")}


def summary(energy: Mapping[str, Any]) -> dict[str, Any]:
    """The totals of an energy, without its layers."""
    return {key: energy[key] for key in KEYS}


def row(model: str, precision: str, score: Score | None, forms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One model of the comparison: its accuracy on the final split, and its energy per form."""
    energies = {form: summary(energy) for form, energy in forms.items()}
    return {"model": model, "precision": precision, "accuracy": score.to_json() if score else None, "forms": energies}


def counterpart(
    bundle: Bundle, lower: Callable[[Bundle], Mapping[str, Lowered]], score: Callable[[Bundle], Score | None]
) -> list[dict[str, Any]]:
    """Rows of the model that `bundle` names as its counterpart; empty where it names none or that one takes other inputs.

    `lower` and `score` are those of the run, so that graphs are for the same target and accuracies from the same examples.
    """
    if not bundle.counterpart or bundle.data is None:
        return []
    from edgetk.targets.op_energy import op_energy

    plain = source.open_model(bundle.counterpart, task=bundle.task)
    if plain.clip is None or bundle.clip is None or plain.clip.inputs != bundle.clip.inputs or plain.labels != bundle.labels:
        return []
    plain = replace(plain, data=bundle.data, target=bundle.target)
    rows = []
    for precision, names in VERSIONS.items():
        made = replace(plain, body=copy.deepcopy(plain.body))
        for name in names:
            result = registry.load("pass", name)()(made)
            made = replace(made, body=result.body, signature=result.signature or made.signature)
        made.module.eval()
        energies = {
            form: {key: getattr(energy, key) for key in KEYS}
            for form, low in lower(made).items()
            for energy in (op_energy(cost.count(low)),)
        }
        rows.append(row(plain.name, precision, score(made), energies))
    return rows
