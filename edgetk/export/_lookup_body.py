"""The bodies of edgetk::LookupLinear (int8 tables) and edgetk::LookupLinearFloat in standard operators, as ONNX text.

Source: MemoryFormer, arXiv:2411.12992, eq. 4 to 8; the arithmetic of `edgetk.models.layers.memory_layer`. Two products are
left, bits by powers of two and weights by rows: K (tau + h) multiply-accumulates a token.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgetk.core.errors import PreconditionError
from edgetk.models.layers.memory_hash import FRACTION_BITS, TOP_CODE

_SIZE = """
        size = Abs (z)"""
_P = """
        two = Constant <value = float {2.0}> ()
        temperature_value = Constant <value_float: float = @temperature> ()
        steepness = Div (two, temperature_value)
        steep = Mul (size, steepness)
        halves = Sigmoid (steep)
        logarithms = Log (halves)
        logarithm = ReduceSum <keepdims: int = 0> (logarithms, last)
        p = Exp (logarithm)"""
_L1 = """
        length = ReduceSum <keepdims: int = 0> (size, last)"""

#: weighting -> how `weight` (…, K) comes from z (…, K, tau)
_WEIGHTS = {
    "p": _SIZE + _P + "\n        weight = Identity (p)",
    "l1p": _SIZE + _P + _L1 + "\n        weight = Mul (length, p)",
    "l1": _SIZE + _L1 + "\n        weight = Identity (length)",
    "one": "\n        zeros = Mul (flat_row, nothing)\n        whole = Constant <value = float {1.0}> ()"
    "\n        weight = Add (zeros, whole)",
}


def lookup_linear(attributes: Mapping[str, object]) -> str:
    """x (…, K tau) and tables (K, 2^tau, h) int8, scale and bias (h,) -> y (…, h), float32.

    Attributes: weighting, temperature, powers (1, 2, 4 … for each bit), offsets (of each table's first row).
    """
    weighting = _weighting("LookupLinear", attributes)
    one, top = 2 ** FRACTION_BITS[weighting], TOP_CODE[weighting]
    return f"""
    LookupLinear <weighting, temperature, powers, offsets> (x, tables, scale, bias) => (y)
    {{
        {_rows(weighting)}
        chosen = Cast <to: int = 1> (chosen_stored)
        one = Constant <value = float {{{one}.0}}> ()
        top = Constant <value = float {{{top}.0}}> ()
        fine = Mul (weight, one)
        rounded = Round (fine)
        code = Min (rounded, top)
        code_row = Unsqueeze (code, before_last)
        totals = MatMul (code_row, chosen)
        total = Squeeze (totals, before_last)
        factor = Div (scale, one)
        scaled = Mul (total, factor)
        y = Add (scaled, bias)
    }}
    """


def lookup_linear_float(attributes: Mapping[str, object]) -> str:
    """The same with tables in float32, weights that are not rounded, and no scale. It has no kernel."""
    return f"""
    LookupLinearFloat <weighting, temperature, powers, offsets> (x, tables, bias) => (y)
    {{
        {_rows(_weighting("LookupLinearFloat", attributes))}
        weight_row = Unsqueeze (weight, before_last)
        totals = MatMul (weight_row, chosen_stored)
        total = Squeeze (totals, before_last)
        y = Add (total, bias)
    }}
    """


def _weighting(name: str, attributes: Mapping[str, object]) -> str:
    weighting = str(attributes.get("weighting"))
    if weighting not in _WEIGHTS:
        raise PreconditionError(
            f"lower: {name} must have a weighting of {', '.join(_WEIGHTS)}, got {weighting!r}; export it again"
        )
    return weighting


def _rows(weighting: str) -> str:
    """From x to `weight` (…, K) and `chosen_stored` (…, K, h)."""
    return f"""last = Constant <value = int64[1] {{-1}}> ()
        before_last = Constant <value = int64[1] {{-2}}> ()
        start = Constant <value = int64[1] {{0}}> ()
        nothing = Constant <value = float {{0.0}}> ()
        powers_row = Constant <value_floats: floats = @powers> ()
        offsets_row = Constant <value_ints: ints = @offsets> ()
        shape = Shape (x)
        leading = Slice (shape, start, last)
        count = Shape (offsets_row)
        bits = Shape (powers_row)
        parts = Concat <axis: int = 0> (leading, count, bits)
        z = Reshape (x, parts)
        positive = GreaterOrEqual (z, nothing)
        signs = Cast <to: int = 1> (positive)
        powers_column = Unsqueeze (powers_row, last)
        columns = MatMul (signs, powers_column)
        flat_row = Squeeze (columns, last)
        row = Cast <to: int = 7> (flat_row)
        place = Add (row, offsets_row)
        width = Shape (bias)
        table_shape = Concat <axis: int = 0> (last, width)
        flat = Reshape (tables, table_shape)
        chosen_stored = Gather <axis: int = 0> (flat, place){_WEIGHTS[weighting]}"""


__all__ = ["lookup_linear", "lookup_linear_float"]
