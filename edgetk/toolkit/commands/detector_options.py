"""What `edgetk stream` and `edgetk evaluate --streaming` ask for alike: the detector, the gate, and what runs the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgetk.tasks.speech.detect import Rule
    from edgetk.tasks.speech.gate import GateRule

Runtime = Annotated[
    str | None,
    typer.Option("--runtime", metavar="NAME", help="torch, onnxruntime or c.", show_default=False),
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", metavar="P", help="Probability from which on a word counts; default: 0.95.")
]
Window = Annotated[
    int | None, typer.Option("--window", metavar="STEPS", help="Steps of 10 ms whose scores are averaged; default: 60.")
]
Hold = Annotated[
    int | None, typer.Option("--hold", metavar="STEPS", help="Steps in a row that must count for one word; default: 5.")
]
Refractory = Annotated[
    int | None, typer.Option("--refractory", metavar="STEPS", help="Fewest steps between two detections; default: 150.")
]
UseGate = Annotated[
    bool, typer.Option("--gate", help="Run the network only where the sound is louder than its background (energy alone).")
]


def rule_of(
    threshold: float | None, window: int | None, hold: int | None, refractory: int | None, words: str | None = None
) -> Rule:
    """A detector's settings from the options that are given."""
    from edgetk.tasks.speech.detect import Rule

    chosen: dict[str, Any] = {"threshold": threshold, "window": window, "hold": hold, "refractory": refractory}
    watched = tuple(word.strip() for word in words.split(",")) if words else ()
    return Rule(**{name: value for name, value in chosen.items() if value is not None}, words=watched)


def gate_of(wanted: bool) -> GateRule | None:
    """The gate's settings where one is wanted."""
    from edgetk.tasks.speech.gate import GateRule

    return GateRule() if wanted else None
