"""The model card beside a weights file: what it is, what it was trained on and how, and how often it is right, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import edgetk
from edgetk.core.bundle import Bundle
from edgetk.core.errors import EdgetkError
from edgetk.core.figures import Score

SCHEMA_VERSION = 1


def card(
    bundle: Bundle,
    file: str,
    content: bytes,
    data: Mapping[str, Any],
    accuracy: Mapping[str, Score],
    recipe: Mapping[str, Any],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """The card of the weights `content`, stored as `file`.

    data      where the examples come from, how many of each split, their licence
    accuracy  "validation", "test", …: each with the number right, n and the 95 % Wilson interval
    recipe    every setting of the training, under the name it started from
    training  seed, best epoch, seconds, device and whatever else is known about the run
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "edgetk_version": edgetk.__version__,
        "name": bundle.name,
        "source": dict(bundle.source),
        "task": bundle.task,
        "labels": list(bundle.labels),
        "weights": {"file": file, "sha256": sha256(content).hexdigest(), "size_bytes": len(content)},
        "parameters": sum(p.numel() for p in bundle.module.parameters()),
        "macs": macs(bundle),
        "data": dict(data),
        "accuracy": {name: {"correct": score.correct, **score.to_json()} for name, score in accuracy.items()},
        "recipe": dict(recipe),
        "training": dict(training),
    }


def macs(bundle: Bundle) -> dict[str, float | str]:
    """Multiply-accumulates counted in the graph of each form: "clip" for a whole input, "stream" for one step.

    "per_frame" is that of one step, or for a model without a stream form the whole input's share of one frame. Where the
    model cannot be lowered, or onnx is not installed (as on a machine that only trains), "missing" says why.
    """
    try:
        from edgetk.export.lower import lower
        from edgetk.targets import board
        from edgetk.targets.count import count

        counted: dict[str, float | str] = {
            low.form: count(low.graph, low.signature).macs for low in lower(bundle, board.load("host"))
        }
    except (ImportError, EdgetkError) as error:
        return {"missing": str(error)}
    spec = bundle.signature.inputs[0]
    frames = dict(zip(spec.axes.split(), spec.shape, strict=False)).get("T")
    if "stream" in counted:
        counted["per_frame"] = counted["stream"]
    elif isinstance(frames, int):
        counted["per_frame"] = float(counted["clip"]) / frames
    return counted
