"""What an exported graph says about itself, as ONNX `metadata_props`: text keys and values that any runtime can read.

required  schema_version, edgetk_version, model_type, signature (JSON), inputs, outputs, quantization, target
required for streams  states (JSON list of name, output, shape, dtype, init, holds), period_s, lookahead_s
optional  task, labels (one a line), front_end (JSON), sample_rate, recipe_sha256, accuracy (JSON), license, url, author,
          graph_sha256 (of operators and weights: generated C of the same graph names it too),
          parity ("bit-exact" where every output and state was proven equal bit for bit; a file without its proof is not
          written), firing (JSON: for each product what drives it, spikes or not, how often, and on which inputs)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import edgetk
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.target import Target
from edgetk.export.graph import fingerprint

if TYPE_CHECKING:
    import onnx

#: Raised whenever a key changes its meaning or a required one is added.
SCHEMA_VERSION = "1"

#: What a caller may add: facts that neither the model nor the target knows.
FACTS = ("recipe_sha256", "accuracy", "license", "url", "author")

#: What a caller may add for each form ("clip", "stream") apart, since their operators have different names.
FORM_FACTS = ("firing",)


def describe(
    lowered: Lowered, bundle: Bundle, target: Target, front_end: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, str]:
    """All metadata of one graph; optional keys only where there is something to say."""
    signature = lowered.signature
    passes = ", ".join(record.name for record in bundle.lineage)
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "edgetk_version": edgetk.__version__,
        "model_type": bundle.name,
        "signature": signature.to_json(),
        "inputs": " ".join(signature.input_names),
        "outputs": " ".join(signature.output_names),
        "quantization": lowered.precision,
        "target": str(target),
        "passes": passes,
        "task": bundle.task,
        "labels": "\n".join(bundle.labels),
        "front_end": dict(front_end),
        "sample_rate": front_end.get("sample_rate", ""),
        "parity": "bit-exact" if lowered.exact and lowered.reference is not None else "",
        **{key: facts[key] for key in FACTS if key in facts},
        **{key: facts[key][lowered.form] for key in FORM_FACTS if lowered.form in facts.get(key, {})},
    }
    if signature.is_streaming:
        keys = ("name", "output", "shape", "dtype", "holds")
        data["states"] = [{**{key: s.to_json()[key] for key in keys}, "init": list(s.init)} for s in signature.state]
        data["period_s"] = signature.period_s if signature.period_s is not None else ""
        data["lookahead_s"] = signature.lookahead_s
    texts = {key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in data.items()}
    return {key: text for key, text in texts.items() if text not in ("", "{}")}


def write(model: onnx.ModelProto, entries: Mapping[str, str]) -> onnx.ModelProto:
    """A copy of `model` with `entries` and the hash of its graph added (same keys replaced), in sorted order.

    What an earlier file was proven or seen to do is not taken over.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {key: text for key, text in read(model).items() if key not in ("parity", *FORM_FACTS)}
    merged = kept | dict(entries) | {"graph_sha256": fingerprint(model)}
    del copy.metadata_props[:]
    onnx.helper.set_model_props(copy, dict(sorted(merged.items())))
    return copy


def read(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata of a graph."""
    return {p.key: p.value for p in model.metadata_props}
