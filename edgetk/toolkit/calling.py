"""Call a model the way its signature says, and see that it keeps to it: shapes, types, finite numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgetk.core.bundle import Bundle, Form
from edgetk.core.errors import EdgetkError, InputError, PostconditionError
from edgetk.core.signature import Signature, StateSpec, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch

#: steps of a stream that comparisons run, and those of spikes: membranes take time to fill
STEPS, SPIKING_STEPS = 8, 64
#: relative difference that a lossless pass may make
LOSSLESS = 1e-4
#: share of the outputs' variance that a lossless pass may change where thresholds make spikes
LOSSLESS_SPIKES = 1e-3


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, NumPy's and torch's random numbers follow from `seed` inside the block and go on as before after it."""
    import random

    import numpy as np
    import torch

    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def symbols(signature: Signature, batch: int) -> dict[str, int]:
    """A size for every symbolic dimension: `batch` for the first one of the first input, 1 for the others."""
    first = signature.inputs[0].shape[0] if signature.inputs and signature.inputs[0].shape else None
    return {first: batch} if isinstance(first, str) else {}


def start(state: StateSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    """A carried tensor at the start of a stream."""
    import torch

    shape = state.spec.concrete(**sizes)
    dtype = getattr(torch, state.spec.dtype)
    if not state.init:
        return torch.zeros(shape, dtype=dtype)
    first = torch.tensor(state.init, dtype=dtype)
    return first.reshape((1, *shape[1:]) if first.numel() * shape[0] == _size(shape) else shape).expand(shape).clone()


def example(signature: Signature, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Inputs for one call: normal random numbers for the inputs, the start values for the states."""
    import torch

    sizes = symbols(signature, batch)
    generator = torch.Generator().manual_seed(seed)
    inputs = [_draw(spec, sizes, generator) for spec in signature.inputs]
    return (*inputs, *(start(state, sizes) for state in signature.state))


def check_form(form: Form, inputs: Sequence[torch.Tensor], who: str, error: type[EdgetkError] = PostconditionError) -> None:
    """Call `form` and compare what comes out with its signature. Raises `error`."""
    import torch

    signature = form.signature
    try:
        with torch.no_grad():
            outputs = form.call(*inputs)
    except EdgetkError:
        raise
    except Exception as problem:  # a model may fail in any way; what it said is what its author needs
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise error(
            f"{who}: the {form.name} form must accept inputs of shape {shapes}, got {type(problem).__name__}: "
            f"{str(problem).splitlines()[0] if str(problem) else ''}; make the signature and the model agree"
        ) from problem
    names = signature.output_names
    if len(outputs) != len(names):
        raise error(
            f"{who}: the {form.name} form must give {len(names)} outputs ({', '.join(names)}), got {len(outputs)}; "
            "make the signature and the model agree"
        )
    sizes = sizes_of(signature, inputs)
    specs = (*signature.outputs, *(state.spec for state in signature.state))
    for name, spec, output in zip(names, specs, outputs, strict=True):
        _check_tensor(name, spec, output, sizes, f"{who}: {form.name} output {name}", error)


def check_interface(bundle: Bundle, who: str, error: type[EdgetkError] = PostconditionError) -> None:
    """Every form of a torch bundle, on drawn inputs (whole inputs from its data where it has some). Raises `error`."""
    for form in bundle.forms():
        inputs = example(form.signature)
        if form.name == "clip" and bundle.data is not None:
            inputs = (bundle.data.calibration(2), *inputs[1:])
        check_form(form, inputs, who, error)


def check_graph(bundle: Bundle, who: str) -> None:
    """The same for an ONNX body: checked, with the inputs and outputs of its signature. Raises PostconditionError."""
    import onnx

    from edgetk.export import graph

    try:
        onnx.checker.check_model(bundle.body, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise PostconditionError(f"{who}: the graph must pass the ONNX checker, got: {reason}; mend the pass") from problem
    graph.io_contract(bundle.body, bundle.signature)
    form = graph_form(bundle)
    check_form(form, example(form.signature), who)


def graph_form(bundle: Bundle) -> Form:
    """An ONNX body as a form that takes and gives torch tensors, run by onnxruntime."""
    import torch

    from edgetk.export.parity import run_once

    content = bundle.body.SerializeToString()
    name = "stream" if bundle.signature.is_streaming else "clip"
    return Form(
        name, bundle.signature, lambda *x: tuple(torch.from_numpy(y) for y in run_once(content, [t.numpy() for t in x]))
    )


def difference(before: Bundle, after: Bundle, inputs: torch.Tensor | None = None) -> tuple[float, str]:
    """The largest relative difference of any output of any form, and the name of that form.

    Whole inputs are `inputs`, or drawn; streams run STEPS steps from their start. Relative means against the largest
    magnitude of the output before.
    """

    def relative(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).abs().max()) / max(float(a.abs().max()), 1e-6)

    return _worst(before, after, inputs, STEPS, relative)


def check_lossless(
    before: Bundle, after: Bundle, inputs: torch.Tensor | None, who: str, error: type[EdgetkError] = PostconditionError
) -> None:
    """A lossless pass changes outputs by rounding only. Raises `error`.

    Where a module has thresholds (`spike_driven`) a rounding now and then makes or takes a spike, which no bound on the largest
    difference can tell from a mistake: there the bound is on the share of the outputs' variance that changed.
    """
    from edgetk.models.layers.observe import changed_share

    if hasattr(before.body, "spike_driven"):
        bound, (gap, form) = LOSSLESS_SPIKES, _worst(before, after, inputs, SPIKING_STEPS, changed_share)
        promise = f"no more than {bound:.0e} of the variance of its spiking outputs may change"
    else:
        bound, (gap, form) = LOSSLESS, difference(before, after, inputs)
        promise = f"outputs must stay equal up to {bound:.0e}"
    if not gap <= bound:
        raise error(f"{who}: is lossless, so {promise}, got {gap:.1e} in the {form} form; mend the pass, or leave it out")


def _worst(
    before: Bundle,
    after: Bundle,
    inputs: torch.Tensor | None,
    steps: int,
    gap: Callable[[torch.Tensor, torch.Tensor], float],
) -> tuple[float, str]:
    """The largest `gap` of any output, and the form that has it."""
    import torch

    worst = (0.0, "")
    forms = {form.name: form for form in _forms(after)}
    for form in _forms(before):
        other = forms.get(form.name)
        if other is None:
            raise PostconditionError(f"{after.name}: the {form.name} form must still be there, got none; keep it")
        with torch.no_grad():
            left, right = _run(form, inputs, steps), _run(other, inputs, steps)
        for a, b in zip(left, right, strict=True):
            found = gap(a, b) if a.shape == b.shape else float("inf")
            if not found <= worst[0]:  # also catches NaN
                worst = (found, form.name)
    return worst


def check_features(bundle: Bundle, features: torch.Tensor, who: str) -> None:
    """The data of a task must have the shape that the model takes, frame by frame where it takes frames. Raises InputError."""
    signature = bundle.clip or bundle.signature
    spec, got = signature.inputs[0], tuple(features.shape[1:])
    wanted = spec.shape[1:]
    if signature.is_streaming and _size(spec.concrete(**symbols(signature, 1))) == _size(got[1:]):
        return
    if len(wanted) != len(got) or any(isinstance(w, int) and w != g for w, g in zip(wanted, got, strict=True)):
        raise InputError(
            f"{who}: inputs must have the shape of the task's features (N, {', '.join(map(str, got))}), "
            f"got a model for (N, {', '.join(map(str, wanted))}); change the model's input or choose another --task"
        )


def sizes_of(signature: Signature, inputs: Sequence[torch.Tensor | np.ndarray]) -> dict[str, int]:
    """What each symbolic dimension of a signature is in these inputs."""
    sizes: dict[str, int] = {}
    specs = (*signature.inputs, *(state.spec for state in signature.state))
    for spec, tensor in zip(specs, inputs, strict=True):
        for dimension, size in zip(spec.shape, tensor.shape, strict=True):
            if isinstance(dimension, str):
                sizes.setdefault(dimension, size)
    return sizes


def _forms(bundle: Bundle) -> tuple[Form, ...]:
    return bundle.forms() if bundle.is_torch else (graph_form(bundle),)


def _run(form: Form, inputs: torch.Tensor | None, steps: int) -> list[torch.Tensor]:
    """All outputs of one call, or those (without states) of a stream's first steps, one after the other along axis 0."""
    import torch

    if not form.signature.is_streaming:
        drawn = example(form.signature)
        return list(form.call(*((inputs, *drawn[1:]) if inputs is not None else drawn)))
    seen = []
    count = len(form.signature.inputs)
    states = example(form.signature)[count:]
    for step in range(steps):
        outputs = form.call(*example(form.signature, seed=step)[:count], *states)
        seen.append(outputs[: len(form.signature.outputs)])
        states = outputs[len(form.signature.outputs) :]
    return [torch.cat(output) for output in zip(*seen, strict=True)]


def _check_tensor(
    name: str, spec: TensorSpec, output: Any, sizes: Mapping[str, int], who: str, error: type[EdgetkError]
) -> None:
    import torch

    if not isinstance(output, torch.Tensor):
        raise error(f"{who} must be a tensor, got {type(output).__name__}; return tensors only")
    # a symbol that only the outputs have may be any size
    wanted = tuple(d if isinstance(d, int) else sizes.get(d, g) for d, g in zip(spec.shape, output.shape, strict=False))
    if len(spec.shape) != output.dim() or wanted != tuple(output.shape):
        text = "(" + ", ".join(map(str, spec.shape)) + ")"
        raise error(f"{who} must have shape {text}, got {tuple(output.shape)}; make the signature and the model agree")
    if str(output.dtype).removeprefix("torch.") != spec.dtype:
        raise error(f"{who} must be {spec.dtype}, got {output.dtype}; make the signature and the model agree")
    if not bool(torch.isfinite(output).all()):
        raise error(f"{who} must be finite, got NaN or infinity; look for a division by zero or weights that blew up")


def _draw(spec: TensorSpec, sizes: Mapping[str, int], generator: torch.Generator) -> torch.Tensor:
    import torch

    shape = spec.concrete(**sizes)
    dtype = getattr(torch, spec.dtype)
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    return torch.randn(shape, generator=generator, dtype=dtype)


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for d in shape:
        total *= d
    return total
