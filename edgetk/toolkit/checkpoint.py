"""Models as files: weights in safetensors, everything else as JSON in its metadata; reading one runs no code from it.

The metadata key `edgetk` holds how to build the fresh body (`source`), the passes it went through (`lineage`, with the
structure each one decided on), its interface and its labels. Only models of the registry are built from a file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import edgetk
from edgetk.core import registry
from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.errors import EdgetkError, InputError, PostconditionError
from edgetk.core.signature import Signature
from edgetk.toolkit import stored
from edgetk.toolkit.settings import construct
from edgetk.toolkit.stored import Store

KEY = "edgetk"
SCHEMA_VERSION = 1


def suffix(bundle: Bundle) -> str:
    """File name extension of the bundle's file."""
    return ".safetensors" if bundle.is_torch else ".onnx"


def save_model(bundle: Bundle, store: Store = "float32") -> bytes:
    """The bundle as the content of a file; `store` says how floating-point weights are stored (`edgetk.toolkit.stored`).

    The same bundle gives the same bytes. Raises PostconditionError for state that is not tensors.
    """
    head = json.dumps(_head(bundle), sort_keys=True, allow_nan=False)
    if not bundle.is_torch:
        graph = type(bundle.body)()
        graph.CopyFrom(bundle.body)
        kept = [p for p in graph.metadata_props if p.key != KEY]
        del graph.metadata_props[:]
        graph.metadata_props.extend(kept)
        graph.metadata_props.add(key=KEY, value=head)
        content: bytes = graph.SerializeToString(deterministic=True)
        return content
    import torch
    from safetensors.torch import save

    for name, value in bundle.module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise PostconditionError(f"{bundle.name}: state {name} must be a tensor to be stored, got {type(value).__name__}")
    return save(stored.encode(bundle.module, store), metadata={KEY: head})


def load_model(path: Path, original: Bundle | None = None) -> Bundle:
    """The bundle in a file that `save_model` made.

    Built again from the registry, each pass's structure laid over it, then the weights loaded, every name and shape
    checked. `original` replaces the registry for models that are not in it (a user's own); its body is copied, not changed.
    Raises InputError for a file that is truncated, foreign or does not fit.
    """
    who = f"model {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{who}: must be a readable file, got: {error.strerror}; check the path") from error
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors, head = load(content), read_head(content)
        signature, clip = (Signature.from_json(head[k]) if head and head[k] else None for k in ("signature", "clip"))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{who}: must be a whole safetensors file of {len(content)} bytes, got: {error}; copy or make it again"
        ) from error
    if head is None:
        raise InputError(
            f"{who}: must be written by edgetk (metadata key {KEY!r}), got a safetensors file without it; "
            "use a file from edgetk train or compress, or wrap the model as pkg.module:function"
        )
    fresh = original if original is not None else _build(head, who)
    body = copy.deepcopy(original.body) if original is not None else fresh.body
    records = tuple(_record(data, who) for data in head["lineage"])
    if original is None and not records:  # the weights outlive a change of the model's interface
        signature, clip = fresh.signature, fresh.clip
    base = len(original.lineage) if original is not None else 0
    for record in records[base:]:
        if record.structure is not None:
            body = _rebuild(body, record, who)
    _load_weights(body, tensors, who)
    return replace(
        fresh,
        name=head["name"],
        body=body.eval(),
        signature=signature or Signature((), ()),
        clip=clip,
        source=head["source"],
        task=head["task"],
        labels=tuple(head["labels"]),
        lineage=records,
    )


def restore(path: Path, original: Bundle) -> Bundle:
    """The checkpoint of a run that began with `original`, whatever its body is; data and target stay. Raises InputError."""
    if original.is_torch:
        return load_model(path, original)
    from edgetk.export import graph

    body = graph.load(path)
    written = {p.key: p.value for p in body.metadata_props}.get(KEY)
    if written is None:
        raise InputError(
            f"model {path}: must be a checkpoint of edgetk, got a graph without its metadata; run without --resume"
        )
    try:
        head = json.loads(written)
        signature, lineage = Signature.from_json(head["signature"]), head["lineage"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"model {path}: must hold whole metadata, got: {error}; run without --resume") from error
    return replace(original, body=body, signature=signature, lineage=tuple(_record(r, f"model {path}") for r in lineage))


def read_head(content: bytes) -> dict[str, Any] | None:
    """The edgetk metadata of a safetensors file, None where it has none. Raises ValueError or KeyError for nonsense."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    if KEY not in metadata:
        return None
    head: dict[str, Any] = json.loads(metadata[KEY])
    if head["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {head['schema_version']} (this edgetk reads {SCHEMA_VERSION})")
    for key in ("name", "source", "task", "labels", "signature", "clip", "lineage"):
        head[key]  # a missing one raises KeyError here and not half-way
    if not isinstance(head["source"], dict) or not isinstance(head["lineage"], list) or not isinstance(head["labels"], list):
        raise ValueError("metadata of another form")
    return head


def _head(bundle: Bundle) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "edgetk_version": edgetk.__version__,
        "name": bundle.name,
        "source": dict(bundle.source),
        "task": bundle.task,
        "labels": list(bundle.labels),
        "signature": bundle.signature.to_json(),
        "clip": bundle.clip.to_json() if bundle.clip else None,
        "lineage": [record.to_json() for record in bundle.lineage],
    }


def _build(head: Mapping[str, Any], who: str) -> Bundle:
    source = head["source"]
    if "model" not in source:
        raise InputError(
            f"{who}: must name a model of the registry to be built, got {source.get('function', 'none')!r}; "
            "a file may not choose code to run, so open it together with the function that made it"
        )
    try:
        built: Bundle = registry.load("model", source["model"])(source["variant"], **source["config"])
    except EdgetkError:
        raise
    except Exception as error:  # the config comes from a file: it may be wrong in any way
        raise InputError(
            f"{who}: must hold settings that {source['model']} accepts, got {type(error).__name__}: {error}; make it again"
        ) from error
    return built


def _record(data: Any, who: str) -> PassRecord:
    try:
        return PassRecord.from_json(data)
    except (KeyError, TypeError) as error:
        raise InputError(f"{who}: must hold whole pass records, got one without {error}; make it again") from error


def _rebuild(body: Any, record: PassRecord, who: str) -> Any:
    try:
        step = construct(registry.load("pass", record.name), record.settings, record.name)
        return step.rebuild(body, record.structure)
    except EdgetkError:
        raise
    except Exception as error:
        raise InputError(
            f"{who}: the structure that {record.name} recorded must fit the model, got {type(error).__name__}: {error}; "
            "make the file again with this version of edgetk"
        ) from error


def _load_weights(body: Any, tensors: Mapping[str, Any], who: str) -> None:
    own = body.state_dict()
    tensors = stored.decode(tensors, own)
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = [k for k in sorted(own.keys() & tensors.keys()) if own[k].shape != tensors[k].shape]
    if missing or extra or wrong:
        parts = [f"{what} {', '.join(names[:3])}" for what, names in (("no", missing), ("unknown", extra)) if names]
        parts += [f"{k} as {tuple(tensors[k].shape)} instead of {tuple(own[k].shape)}" for k in wrong[:3]]
        raise InputError(f"{who}: must hold exactly the model's weights, got {'; '.join(parts)}; make the file again")
    body.load_state_dict(tensors, strict=True)
