"""From torch to ONNX, once: `lower` gives one clean single-file graph for each form a model can be called in."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetk.core.bundle import Bundle, Form
from edgetk.core.contracts import Lowered
from edgetk.core.errors import InputError, PreconditionError
from edgetk.core.signature import Shape, Signature, TensorSpec
from edgetk.core.target import Target
from edgetk.export import graph as graphs
from edgetk.export import parity

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    import torch

#: The operator set torch's exporter has implementations for; anything lower is converted from it.
NATIVE_OPSET = 18

#: Example size of symbolic dimensions. Not 1 (the exporter would take it for a constant), and unlike each other.
_EXAMPLE_SIZES = (2, 37, 41, 43, 47)


def lower(bundle: Bundle, target: Target, forms: Sequence[str] | None = None) -> list[Lowered]:
    """One graph for each of the model's forms ("clip", "stream"; all where `forms` is None), within what `target` accepts.

    The clip form keeps its symbolic dimensions; the stream form is static, batch 1. Operator set and IR version do not
    exceed those of `target.stack`. A body that is a graph already goes through unchanged if it fits, else converted.

    Raises InputError (the module does not do what its signature says), PreconditionError (a form the model does not have, an
    operator that the exporter or the target's operator set lacks).
    """
    if not bundle.is_torch:
        lowered = [_lower_graph(bundle, target)]
    else:
        lowered = [_lower_form(bundle, form, target) for form in bundle.forms() if forms is None or form.name in forms]
    have = [low.form for low in lowered] if not bundle.is_torch else [form.name for form in bundle.forms()]
    if missing := [name for name in forms or () if name not in have]:
        raise PreconditionError(
            f"lower: {bundle.name} must have a {missing[0]} form, got {', '.join(have)}; ask for one it has"
        )
    return [low for low in lowered if forms is None or low.form in forms]


def _lower_form(bundle: Bundle, form: Form, target: Target) -> Lowered:
    from edgetk.export import clean, functions, integers, neurons, opset
    from edgetk.models.layers import operators

    signature = static(form.signature) if form.name == "stream" else form.signature
    with _evaluating(bundle.module):
        example = _example(signature)
        _verify(bundle.name, form, signature, example)
        with operators.as_nodes(functions.kept_by(target.stack)):
            model = _capture(bundle, form, signature, example)
    clean.tidy(model)
    neurons.expand(model, target.stack, bundle.name)
    if target.stack.runtime == "onnxruntime":
        integers.integer_kernels(model)
        clean.sweep(model)
    integers.own_zero_points(model.graph)
    proto = opset.fit(clean.to_proto(model), target.stack, bundle.name)
    graphs.io_contract(proto, signature)
    exact = bool(getattr(bundle.module, "exact_sums", False))
    hashed = any(getattr(layer, "hashed", False) for layer in bundle.module.modules())
    return Lowered(form.name, proto, signature, graphs.precision_of(proto), _reference(bundle.module, form), exact, hashed)


def _lower_graph(bundle: Bundle, target: Target) -> Lowered:
    from edgetk.export import opset

    body: onnx.ModelProto = bundle.body
    form = "stream" if bundle.signature.is_streaming else "clip"
    proto = opset.fit(body, target.stack, bundle.name)
    return Lowered(form, proto, bundle.signature, graphs.precision_of(proto), _graph_reference(body))


def _capture(bundle: Bundle, form: Form, signature: Signature, example: tuple[torch.Tensor, ...]) -> onnx_ir.Model:
    import torch

    class Wrapper(torch.nn.Module):
        """The form as a module, with the model inside so that its weights are seen as its parameters."""

        def __init__(self) -> None:
            super().__init__()
            self.body = bundle.module

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return form.call(*inputs)

    specs = (*signature.inputs, *(s.spec for s in signature.state))
    symbolic = [{axis: d for axis, d in enumerate(spec.shape) if isinstance(d, str)} for spec in specs]
    dynamic: Any = (tuple(symbolic),) if any(symbolic) else None
    try:
        with _quiet():
            program = torch.onnx.export(
                Wrapper().eval(),
                example,
                input_names=list(signature.input_names),
                output_names=list(signature.output_names),
                opset_version=NATIVE_OPSET,
                dynamic_shapes=dynamic,
                verbose=False,
            )
    except Exception as error:  # torch raises many types here; the last line says which operator or dimension it is
        reason = _first_line(error)
        raise PreconditionError(
            f"lower: the {form.name} form of {bundle.name} must be exportable to ONNX, got: {reason}; "
            "change that operation or keep the dimension fixed in the signature"
        ) from error
    assert program is not None
    return program.model


def _first_line(error: BaseException) -> str:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no text'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself (optional packages, deprecations) off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Inference mode of every layer, given back as it was."""
    import torch

    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer in training:
            layer.training = True


def static(signature: Signature) -> Signature:
    """The same with every symbolic dimension 1: a step is one frame of one stream."""

    def fixed(spec: TensorSpec) -> TensorSpec:
        shape: Shape = spec.concrete()
        return replace(spec, shape=shape)

    return replace(
        signature,
        inputs=tuple(fixed(s) for s in signature.inputs),
        outputs=tuple(fixed(s) for s in signature.outputs),
        state=tuple(replace(s, spec=fixed(s.spec)) for s in signature.state),
    )


def _sizes(signature: Signature) -> dict[str, int]:
    names = dict.fromkeys(d for spec in signature.inputs for d in spec.shape if isinstance(d, str))
    return {name: _EXAMPLE_SIZES[i % len(_EXAMPLE_SIZES)] for i, name in enumerate(names)}


def _example(signature: Signature) -> tuple[torch.Tensor, ...]:
    import torch

    sizes = _sizes(signature)
    rng = np.random.default_rng(0)
    inputs = [torch.from_numpy(parity.draw(rng, spec.concrete(**sizes), spec.dtype)) for spec in signature.inputs]
    return (*inputs, *(torch.zeros(s.spec.concrete(**sizes)) for s in signature.state))


def _verify(name: str, form: Form, signature: Signature, example: tuple[torch.Tensor, ...]) -> None:
    """Call the form once, so that a module that breaks its signature is told so in its own terms."""
    try:
        outputs = form.call(*example)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{n} {list(x.shape)}" for n, x in zip(signature.input_names, example, strict=True))
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{name}: must accept {shapes} ({form.name} form), got: {reason}; mend the module or its signature"
        ) from error
    names = signature.output_names
    if len(outputs) != len(names):
        raise InputError(
            f"{name}: must return {len(names)} tensors ({', '.join(names)}) in its {form.name} form, got {len(outputs)}; "
            "mend the module or its signature"
        )
    sizes = _sizes(signature)
    wanted = [s.concrete(**sizes) for s in signature.outputs] + [s.spec.concrete(**sizes) for s in signature.state]
    for label, tensor, shape in zip(names, outputs, wanted, strict=True):
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{name}: output {label} must have shape {list(shape)} in the {form.name} form, got {list(tensor.shape)}; "
                "mend the module or its signature"
            )


def _reference(module: torch.nn.Module, form: Form) -> Callable[..., tuple[np.ndarray, ...]]:
    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        import torch

        with _evaluating(module):
            return tuple(y.numpy() for y in form.call(*(torch.from_numpy(x) for x in inputs)))

    return run


def _graph_reference(body: onnx.ModelProto) -> Callable[..., tuple[np.ndarray, ...]]:
    """The user's own graph, run by onnxruntime as it stands."""

    def run(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return parity.run_once(body.SerializeToString(), inputs)

    return run


__all__ = ["NATIVE_OPSET", "lower", "static"]
