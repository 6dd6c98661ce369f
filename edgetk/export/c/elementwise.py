"""Element-wise operators: as C expressions, and as numpy functions for the tables that replace what C has no operator for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from edgetk.export.c.graph import Node, refuse
from edgetk.export.c.operands import Codes, Constant, Expression, Memory, Operand, Segment
from edgetk.export.c.table import Function

#: operator -> C text over its operands; comparisons and logic give a condition
_TEXT = {
    "Add": "({0} + {1})",
    "Sub": "({0} - {1})",
    "Mul": "({0} * {1})",
    "Div": "({0} / {1})",
    "Neg": "(-{0})",
    "Abs": "edgetk_max({0}, -{0})",
    "Max": "edgetk_max({0}, {1})",
    "Min": "edgetk_min({0}, {1})",
    "Relu": "edgetk_max({0}, 0.0f)",
    "Round": "edgetk_round({0})",
    "Sqrt": "edgetk_sqrt({0})",
    "Sign": "edgetk_sign({0})",
    "Where": "({0} ? {1} : {2})",
    "Erf": "edgetk_erf({0})",
    "Exp": "edgetk_exp({0})",
    "Tanh": "edgetk_tanh({0})",
    "Sigmoid": "edgetk_sigmoid({0})",
}
_CONDITIONS = {
    "Greater": "({0} > {1})",
    "GreaterOrEqual": "({0} >= {1})",
    "Less": "({0} < {1})",
    "LessOrEqual": "({0} <= {1})",
    "Equal": "({0} == {1})",
    "And": "({0} && {1})",
    "Or": "({0} || {1})",
    "Not": "(!{0})",
}
#: operands of these are conditions
_LOGIC = frozenset({"And", "Or", "Not"})

#: operators that become activation tables where their result is rounded to 8 bits
TRANSCENDENTAL = frozenset({"Erf", "Tanh", "Sigmoid", "Exp"})

OPERATORS = frozenset(_TEXT) | frozenset(_CONDITIONS) | {"Cast", "Clip", "Pow"}


def build(node: Node, operands: Sequence[Operand], shape: tuple[int, ...]) -> Operand:
    """The node as an expression of `shape`."""
    args, kind = tuple(operands), node.kind
    if kind == "Cast":
        return _cast(node, args[0], shape)
    if kind == "Pow":
        return _power(node, args, shape)
    if kind == "Clip":
        # Clip(x, low) or Clip(x, , high) or both: absent inputs were left out by the caller, so ask the node
        bounds = dict(zip([i for i, name in enumerate(node.inputs) if name], args, strict=True))
        made = args[0]
        if 1 in bounds:
            made = Expression("Max", (made, bounds[1]), shape)
        return Expression("Min", (made, bounds[2]), shape) if 2 in bounds else made
    return Expression(kind, args, shape, flag=kind in _CONDITIONS)


def _power(node: Node, args: tuple[Operand, ...], shape: tuple[int, ...]) -> Operand:
    exponent = args[1].array if isinstance(args[1], Constant) else np.zeros(0)
    if exponent.size == 1 and float(exponent.reshape(-1)[0]) in (0.5, 2.0):
        root = float(exponent.reshape(-1)[0]) == 0.5
        return Expression("Sqrt", args[:1], shape) if root else Expression("Mul", (args[0], args[0]), shape)
    raise refuse("Pow must have the exponent 2 or 0.5", node.name, "write it another way")


def _cast(node: Node, value: Operand, shape: tuple[int, ...]) -> Operand:
    to = onnx.TensorProto.DataType.Name(node.attributes["to"])
    if to not in ("FLOAT", "BOOL"):
        raise refuse("casts must be to float32 or bool", f"{node.name} to {to}", "keep integers out of the step")
    if to == "BOOL":
        return Expression("Truth", (value,), shape, flag=True)
    return Expression("Number", (value,), shape) if getattr(value, "flag", False) else value


def index(value: Operand, shape: tuple[int, ...]) -> str:
    """The index of the operand's element that belongs to element i of `shape`: it repeats where an axis has one."""
    if value.size == 1:
        return "0"
    own = (1,) * (len(shape) - len(value.shape)) + tuple(value.shape)
    terms, inside, step, axis = [], 1, 1, len(shape)
    while axis:  # runs of axes that the operand has or has not, the last one first
        run, has = 1, own[axis - 1] == shape[axis - 1] and shape[axis - 1] > 1
        while axis and (shape[axis - 1] == 1 or (own[axis - 1] == shape[axis - 1]) == has):
            axis, run = axis - 1, run * shape[axis - 1]
        if has:
            place = "i" if inside == 1 else f"i / {inside}"
            whole = int(np.prod(shape[:axis])) == 1
            terms.append((place if whole else f"{place} % {run}") + (f" * {step}" if step > 1 else ""))
            step *= run
        inside *= run
    return " + ".join(reversed(terms))


@dataclass(frozen=True)
class Writer:
    """Expressions as C: `spot(segment, index)` gives the text of an element of memory, `prefix` begins names of constants."""

    spot: Callable[[Segment, str], str]
    prefix: str = ""

    def text(self, value: Operand, shape: tuple[int, ...], condition: bool = False) -> str:
        """Element i of a value of `shape`, as a float or as a condition."""
        if isinstance(value, Expression):
            made = self._applied(value)
            if condition == value.flag:
                return made
            return f"({made} != 0.0f)" if condition else f"({made} ? 1.0f : 0.0f)"
        plain = self._leaf(value, index(value, shape))
        return f"({plain} != 0.0f)" if condition else plain

    def _leaf(self, value: Operand, at: str) -> str:
        if isinstance(value, Constant):
            return f"{self.prefix}{value.stored.name}[{at}]" if value.stored else number(value.array.reshape(-1)[0])
        if isinstance(value, Codes):
            code = self.spot(value.memory.segments[0], at)
            return f"((float)((int32_t){code} - {value.grid.zero}) * {number(value.grid.scale)})"
        assert isinstance(value, Memory)
        return self.spot(value.segments[0], at)

    def _applied(self, value: Expression) -> str:
        def arg(i: int, condition: bool = False) -> str:
            return self.text(value.args[i], value.shape, condition)

        if value.op == "Truth":
            return f"({arg(0)} != 0.0f)"
        if value.op == "Number":
            return f"({arg(0, True)} ? 1.0f : 0.0f)"
        template = _TEXT.get(value.op) or _CONDITIONS[value.op]
        logic = value.op in _LOGIC
        return template.format(*(arg(i, logic or (value.op == "Where" and i == 0)) for i in range(len(value.args))))


def number(value: Any) -> str:
    """A float32 as a C constant that reads back as the same number."""
    single = np.float32(value)
    if not np.isfinite(single):
        raise refuse("constants must be finite", f"{single}", "write that bound as a number")
    plain = f"{single:.9g}"
    return plain + ("f" if "." in plain or "e" in plain else ".0f")


def in_place(value: Expression, target: Segment) -> bool:
    """Whether element i of the result needs no other element of `target` than i."""
    return all(
        not isinstance(leaf, Memory)
        or leaf.segments[0].buffer is not target.buffer
        or (leaf.segments[0] == target and index(leaf, value.shape) == "i")
        for leaf in value.leaves()
    )


def only_variable(value: Expression) -> Operand | None:
    """The one tensor that an expression depends on, besides numbers; None where there are several."""
    found = {id(leaf): leaf for leaf in value.leaves() if not (isinstance(leaf, Constant) and leaf.size == 1)}
    only = next(iter(found.values())) if len(found) == 1 else None
    return only if isinstance(only, Memory) and only.size == value.size else None


def function(value: Expression) -> Function:
    """An expression of one variable as a function of float64 arrays."""
    return lambda x: _evaluate(value, x)


def _evaluate(value: Operand, x: np.ndarray) -> np.ndarray:
    if isinstance(value, Constant):
        return np.asarray(value.array.reshape(-1)[0], np.float64)
    if not isinstance(value, Expression):
        return x
    args = [_evaluate(arg, x) for arg in value.args]
    if value.op == "Erf":
        import torch

        erf: np.ndarray = torch.erf(torch.from_numpy(np.ascontiguousarray(args[0]))).numpy()
        return erf
    calls: dict[str, Any] = {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Neg": np.negative, "Abs": np.abs,
        "Max": np.maximum, "Min": np.minimum, "Relu": lambda a: np.maximum(a, 0.0), "Round": np.rint, "Where": np.where,
        "Sqrt": np.sqrt, "Sign": np.sign,
        "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal,
        "Equal": np.equal, "And": np.logical_and, "Or": np.logical_or, "Not": np.logical_not,
        "Truth": lambda a: a != 0, "Number": lambda a: np.asarray(a, np.float64),
        "Tanh": np.tanh, "Exp": np.exp, "Sigmoid": lambda a: 1.0 / (1.0 + np.exp(-a)),
    }  # fmt: skip
    made: np.ndarray = calls[value.op](*args)
    return made
