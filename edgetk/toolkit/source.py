"""What a user calls a model, opened: a zoo name, "package.module:function", a .safetensors or .onnx file, a folder."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.errors import EdgetkError, InputError, UnknownName, closest
from edgetk.core.signature import Signature, TensorSpec
from edgetk.toolkit.calling import check_interface
from edgetk.toolkit.checkpoint import load_model

WEIGHTS = Path(__file__).resolve().parent.parent / "models" / "weights"


def open_model(text: str, task: str | None = None, labels: Sequence[str] | None = None, trained: bool = True) -> Bundle:
    """The model called `text`, ready to run (evaluation mode).

    task    what it is for, where the model itself does not say
    labels  its classes; an untrained zoo model is built for them, any other must have as many outputs
    trained False: a zoo model comes with random weights even where trained ones ship, to be trained
    `source["weights"]` of the result is "untrained" for a zoo model without shipped weights.

    Raises UnknownName (no such model) or InputError (the file or function does not give a model that does what it says).
    """
    if text.endswith(".safetensors"):
        bundle = load_model(Path(text))
    elif text.endswith(".onnx"):
        bundle = _open_graph(Path(text))
    elif ":" in text:
        bundle = _call(text)
    elif (Path(text) / "config.json").is_file():
        bundle = _open_folder(Path(text), task or "", labels)
    else:
        bundle = _open_zoo(text, labels, trained)
    if task and not bundle.task:
        bundle = replace(bundle, task=task)
    return _label(bundle, labels)


def is_untrained(bundle: Bundle) -> bool:
    """True for a zoo model that came without weights: its accuracy is that of a coin."""
    return bundle.source.get("weights") == "untrained"


def files(text: str) -> dict[str, str]:
    """SHA-256 of every file that decides what model `text` is: name -> hash. Empty where there is none yet."""
    if text.endswith((".safetensors", ".onnx")):
        path: Path | None = Path(text)
    elif ":" in text:
        path = _module_file(text.partition(":")[0])
    elif (Path(text) / "config.json").is_file():
        path = Path(text) / "model.safetensors"
    else:
        path = _weights(text)
    return {path.name: sha256(path.read_bytes()).hexdigest()} if path is not None and path.is_file() else {}


def zoo() -> dict[str, tuple[str, str]]:
    """Every zoo name -> (family, variant). Loads the model plug-ins; broken ones are left out.

    A variant that only weights ship for is one that passes made, such as lmuformer-compact: it cannot be trained from scratch.
    """
    found = {}
    for family, entry in registry.entries("model").items():
        if entry.problem() is None:
            for variant in getattr(registry.load_module("model", family), "VARIANTS", {"base": None}):
                found[family if variant == "base" else f"{family}-{variant}"] = (family, variant)
            for file in WEIGHTS.glob(f"{family}-*.safetensors"):
                found.setdefault(file.stem, (family, file.stem.removeprefix(f"{family}-")))
    return found


def _open_zoo(name: str, labels: Sequence[str] | None, trained: bool) -> Bundle:
    family = max((f for f in registry.entries("model") if name == f or name.startswith(f"{f}-")), key=len, default=None)
    if family is None:
        known = zoo()
        raise UnknownName(
            f"model {name!r}: no such model; {closest(name, known)} (or pkg.module:function, x.safetensors, x.onnx)"
        )
    build = registry.load("model", family)
    variants = getattr(registry.load_module("model", family), "VARIANTS", {"base": None})
    variant = name.removeprefix(family).removeprefix("-") or _default(family)
    weights = _weights(name)
    if trained and weights.is_file():
        shipped = load_model(weights)
        return replace(shipped, source={**shipped.source, "weights": weights.name})
    if variant not in variants:
        siblings = {family if v == "base" else f"{family}-{v}" for v in variants}
        raise UnknownName(f"model {name!r}: {family} has no variant {variant!r}; {closest(name, siblings)}")
    bundle: Bundle = build(variant, classes=len(labels)) if labels else build(variant)
    return replace(bundle, labels=tuple(labels or ()), source={**bundle.source, "weights": "untrained"})


def _open_folder(folder: Path, task: str, labels: Sequence[str] | None) -> Bundle:
    """Pretrained weights as others publish them: the first family with an `open_folder` that knows the folder's kind."""
    for family, entry in registry.entries("model").items():
        opener = None if entry.problem() else getattr(registry.load_module("model", family), "open_folder", None)
        bundle: Bundle | None = opener(folder, task, len(labels) if labels else 2) if opener is not None else None
        if bundle is not None:
            return replace(bundle, labels=tuple(labels or ()))
    raise InputError(
        f"model {folder}: must be a folder of pretrained weights (config.json and model.safetensors), got another kind; "
        "name a .safetensors or .onnx file, or a zoo model"
    )


def _default(family: str) -> str:
    """The variant that a family's name alone stands for: "base", or what its module says as `DEFAULT`."""
    return str(getattr(registry.load_module("model", family), "DEFAULT", "base"))


def _weights(name: str) -> Path:
    """Where the weights of a zoo name are, if they ship."""
    if name in registry.entries("model") and registry.entries("model")[name].problem() is None:
        default = _default(name)
        name = name if default == "base" else f"{name}-{default}"
    return WEIGHTS / f"{name}.safetensors"


def _open_graph(path: Path) -> Bundle:
    from edgetk.export import graph

    body = graph.load(path)
    metadata = {p.key: p.value for p in body.metadata_props}
    return Bundle(
        name=path.stem,
        body=body,
        signature=graph.signature_of(body),
        source={"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest()},
        task=metadata.get("task", ""),
        labels=_labels_text(metadata.get("labels", "")),
    )


def _labels_text(text: str) -> tuple[str, ...]:
    """Labels as metadata hold them: a JSON list, or one a line."""
    import json

    if text.startswith("["):
        try:
            return tuple(str(label) for label in json.loads(text))
        except ValueError as error:
            raise InputError(
                f"metadata labels: must be a JSON list or one label a line, got {text[:40]!r}; remove it"
            ) from error
    return tuple(line for line in text.splitlines() if line)


def _call(text: str) -> Bundle:
    """The model that the user's function makes."""
    who = f"model {text}"
    module_name, _, name = text.partition(":")
    with _from_here():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # the user's module may fail in any way
            raise InputError(
                f"{who}: {module_name} must import, got {type(error).__name__}: {error}; "
                "run from the folder it is in, or mend it"
            ) from error
        function = getattr(module, name, None)
        if not callable(function):
            known = [n for n in vars(module) if callable(vars(module)[n]) and not n.startswith("_")]
            raise InputError(f"{who}: {module_name} must have a function {name}, got none; {closest(name, known)}")
        try:
            made = function()
        except EdgetkError:
            raise
        except Exception as error:
            raise InputError(
                f"{who}: {name}() must give a model without arguments, got {type(error).__name__}: {error}; mend the function"
            ) from error
    bundle = made if isinstance(made, Bundle) else _wrap(made, name, who)
    if not bundle.is_torch:
        raise InputError(
            f"{who}: must give a torch model, got a body of {type(bundle.body).__name__}; save a graph as .onnx instead"
        )
    bundle.module.eval()
    check_interface(bundle, who, InputError)
    return replace(bundle, source={"function": text})


def _wrap(made: Any, name: str, who: str) -> Bundle:
    """A plain module with an `example` input as a bundle: first dimension free, output shapes from one call."""
    import torch
    from torch import nn

    if not isinstance(made, nn.Module):
        raise InputError(
            f"{who}: must give an edgetk Bundle or a torch nn.Module, got {type(made).__name__}; return one of them"
        )
    example = getattr(made, "example", None)
    if not isinstance(example, torch.Tensor) or example.dim() < 2 or example.dtype != torch.float32:
        got = (
            f"{example.dtype} of shape {tuple(example.shape)}" if isinstance(example, torch.Tensor) else type(example).__name__
        )
        raise InputError(
            f"{who}: the module must have an attribute `example`, a float32 tensor with the batch first, got {got}; "
            "set module.example = torch.zeros(1, …), or return a Bundle"
        )
    inputs = (TensorSpec("input", ("batch", *example.shape[1:])),)
    with torch.no_grad():
        try:
            output = copy.deepcopy(made).eval()(example)
        except Exception as error:  # the user's forward may fail in any way
            raise InputError(
                f"{who}: forward must accept its example of shape {tuple(example.shape)}, got {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}; make them agree"
            ) from error
    if not isinstance(output, torch.Tensor) or output.dim() < 2:
        got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise InputError(
            f"{who}: forward must give one tensor of class scores (batch, classes), got {got}; return a Bundle instead"
        )
    outputs = (TensorSpec("output", ("batch", *output.shape[1:])),)
    labels = tuple(str(label) for label in getattr(made, "labels", ()))
    return Bundle(name=name, body=made, signature=Signature(inputs, outputs), labels=labels)


def _label(bundle: Bundle, labels: Sequence[str] | None) -> Bundle:
    """The bundle with `labels`; they must be its own, or name the outputs of one that has none."""
    if not labels or tuple(labels) == bundle.labels:
        return bundle
    if bundle.labels:
        raise InputError(
            f"model {bundle.name}: labels must be those it was trained for ({_short(bundle.labels)}), got {_short(labels)}; "
            "leave --labels out, or train it for them: edgetk train"
        )
    outputs = (bundle.clip or bundle.signature).outputs[0].shape[-1]
    if isinstance(outputs, int) and outputs != len(labels):
        raise InputError(
            f"model {bundle.name}: must have one output per label, got {outputs} outputs and {len(labels)} labels "
            f"({_short(labels)}); change one of them"
        )
    return replace(bundle, labels=tuple(labels))


def _short(labels: Sequence[str]) -> str:
    return ", ".join(labels[:4]) + (f", … {len(labels)} in all" if len(labels) > 4 else "")


@contextmanager
def _from_here() -> Iterator[None]:
    """Imports also look into the current folder, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def _module_file(name: str) -> Path | None:
    with _from_here():
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None
