"""Bodies of edgetk::DenseSparseMatMul and edgetk::DenseSparseMatMulByRow: the sparse matrix written out, then one product.

Source: DSFormer, Chand, Prabhu & Kumar 2023, arXiv:2312.13211; `edgetk.models.layers.dense_sparse` has the layout. A runtime
that folds constants holds the matrix with its zeros, and multiplies by all of it.
"""

from __future__ import annotations

from collections.abc import Mapping

#: what stands around the product; the attribute is the same reference in all nodes, so that one body serves them all
_BODY = """
    {name} <width> (x, values, indices) => (y)
    {{
        first = Constant <value = int64[1] {{0}}> ()
        shape = Shape (values)
        lines = Gather <axis: int = 0> (shape, first)
        columns = Constant <value_int: int = @width> ()
        columns_list = Unsqueeze (columns, first)
        size = Concat <axis: int = 0> (lines, columns_list)
        zeros = ConstantOfShape (size)
        places = Cast <to: int = 7> (indices)
        matrix = ScatterElements <axis: int = 1> (zeros, places, values)
        {product}
    }}
    """


def by_column(attributes: Mapping[str, object]) -> str:
    """x (…, width) times the transposed matrix (lines, width) with `values` at `indices` (lines, s) -> (…, lines)."""
    product = "by_column = Transpose <perm: ints = [1, 0]> (matrix)\n        y = MatMul (x, by_column)"
    return _BODY.format(name="DenseSparseMatMul", product=product)


def by_row(attributes: Mapping[str, object]) -> str:
    """x (…, lines) times the matrix (lines, width) with `values` at `indices` (lines, s) -> (…, width)."""
    return _BODY.format(name="DenseSparseMatMulByRow", product="y = MatMul (x, matrix)")


__all__ = ["by_column", "by_row"]
