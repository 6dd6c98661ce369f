"""The body of edgetk::HardAttention in standard operators, as ONNX text: the largest weights, their rows of values, a product.

Source: AxFormer, arXiv:2010.03688; the arithmetic of `edgetk.models.layers.hard_attention`. TopK keeps the first of equal
weights. The one product has N K d multiply-accumulates a head; the rows it reads are gathered first, K for each query.
"""

from __future__ import annotations

from collections.abc import Mapping


def hard_attention(attributes: Mapping[str, object]) -> str:
    """weights (B, H, N, M) and values (B, H, M, d) -> (B, H, N, d), float32.

    Attributes: keep is K, at most M; kept is [K], as shapes are inferred through a list only.
    """
    return """
    HardAttention <keep, kept> (weights, values) => (attended)
    {
        last = Constant <value = int64[1] {-1}> ()
        before_last = Constant <value = int64[1] {-2}> ()
        count = Constant <value_ints: ints = @kept> ()
        top, place = TopK <axis: int = -1, largest: int = 1, sorted: int = 1> (weights, count)
        place_list = Unsqueeze (place, last)
        rows = GatherND <batch_dims: int = 2> (values, place_list)
        top_row = Unsqueeze (top, before_last)
        product = MatMul (top_row, rows)
        attended = Squeeze (product, before_last)
    }
    """


__all__ = ["hard_attention"]
