"""Whether a graph has weights in the 2:4 pattern, which sparse tensor cores read: of every four inputs at most two count.

Source: Mishra et al. 2021, arXiv:2104.08378. TensorRT looks for the pattern only where it is told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx

#: smaller matrices are no reason to look
LEAST = 1024
#: share of zeros from which on a matrix was made sparse on purpose
ZEROS = 0.45


def has_two_of_four(model: onnx.ModelProto) -> bool:
    """True where a stored matrix, float or integer, has the pattern along one of its axes.

    Integers count as symmetric, with zero point 0, as edgetk's weights are.
    """
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.dims[0] * tensor.dims[1] >= LEAST:
            matrix = numpy_helper.to_array(tensor)
            if any(_along_rows(side) for side in (matrix, matrix.T)):
                return True
    return False


def _along_rows(matrix: np.ndarray) -> bool:
    if matrix.shape[1] % 4:
        return False
    used = matrix.reshape(-1, 4) != 0
    return bool((used.sum(1) <= 2).all()) and 1 - float(used.mean()) >= ZEROS


__all__ = ["has_two_of_four"]
