"""Bodies of edgetk::DenseSparseMatMul and its three kin: the sparse matrix written out, then one product.

Source: DSFormer, Chand, Prabhu & Kumar 2023, arXiv:2312.13211; `edgetk.models.layers.dense_sparse` has the layout. A runtime
that folds constants holds the matrix with its zeros, and multiplies by all of it. Int8 values are cast, not dequantized: a
runtime folds the cast, and keeps a DequantizeLinear for each call.
"""

from __future__ import annotations

from collections.abc import Mapping

#: what stands around the product; the attribute is the same reference in all nodes, so that one body serves them all
_BODY = """
    {name} <width> ({inputs}) => (y)
    {{
        first = Constant <value = int64[1] {{0}}> ()
        shape = Shape (values)
        lines = Gather <axis: int = 0> (shape, first)
        columns = Constant <value_int: int = @width> ()
        columns_list = Unsqueeze (columns, first)
        size = Concat <axis: int = 0> (lines, columns_list)
        zeros = ConstantOfShape (size)
        places = Cast <to: int = 7> (indices)
        {product}
    }}
    """
_FLOAT, _INT8 = "x, values, indices", "x, values, indices, scale"
_SCATTER = "matrix = ScatterElements <axis: int = 1> (zeros, places, {numbers})\n        "
_MATRIX = _SCATTER.format(numbers="values")
_MATRIX_INT8 = "numbers = Cast <to: int = 1> (values)\n        " + _SCATTER.format(numbers="numbers")
_TURNED = "by_column = Transpose <perm: ints = [1, 0]> (matrix)\n        "


def by_column(attributes: Mapping[str, object]) -> str:
    """x (…, width) times the transposed matrix (lines, width) with `values` at `indices` (lines, s) -> (…, lines)."""
    return _BODY.format(name="DenseSparseMatMul", inputs=_FLOAT, product=_MATRIX + _TURNED + "y = MatMul (x, by_column)")


def by_row(attributes: Mapping[str, object]) -> str:
    """x (…, lines) times the matrix (lines, width) with `values` at `indices` (lines, s) -> (…, width)."""
    return _BODY.format(name="DenseSparseMatMulByRow", inputs=_FLOAT, product=_MATRIX + "y = MatMul (x, matrix)")


def by_column_int8(attributes: Mapping[str, object]) -> str:
    """As `by_column` with `values` int8, to be multiplied by a `scale` (lines,) for each line."""
    product = _MATRIX_INT8 + _TURNED + "sums = MatMul (x, by_column)\n        y = Mul (sums, scale)"
    return _BODY.format(name="DenseSparseMatMulInt8", inputs=_INT8, product=product)


def by_row_int8(attributes: Mapping[str, object]) -> str:
    """As `by_row` with `values` int8, to be multiplied by a `scale` (lines,) for each line."""
    product = _MATRIX_INT8 + "scaled = Mul (x, scale)\n        y = MatMul (scaled, matrix)"
    return _BODY.format(name="DenseSparseMatMulByRowInt8", inputs=_INT8, product=product)


__all__ = ["by_column", "by_column_int8", "by_row", "by_row_int8"]
