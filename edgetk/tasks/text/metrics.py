"""What GLUE reports beside accuracy: F1 of the class "1" and Matthews' correlation.

Sources: Wang et al. 2018 (GLUE), arXiv:1804.07461, table 1; Matthews 1975, BBA 405, for the correlation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor


def _table(predicted: Tensor, truth: Tensor) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives, true negatives of two lists of 0 and 1."""
    pairs = ((1, 1), (1, 0), (0, 1), (0, 0))
    tp, fp, fn, tn = (int(((predicted == p) & (truth == t)).sum()) for p, t in pairs)
    return tp, fp, fn, tn


def f1(predicted: Tensor, truth: Tensor) -> float:
    """2 TP / (2 TP + FP + FN) of classes (N,) of 0 and 1; 0 where nothing is or should be 1."""
    tp, fp, fn, _ = _table(predicted, truth)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def matthews(predicted: Tensor, truth: Tensor) -> float:
    """Correlation of classes (N,) of 0 and 1, in [-1, 1]; 0 where one of the two is constant."""
    tp, fp, fn, tn = _table(predicted, truth)
    scale = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(scale) if scale else 0.0


#: by the names they are printed under
METRICS: Final[Mapping[str, Callable[[Tensor, Tensor], float]]] = {"F1": f1, "Matthews": matthews}

__all__ = ["METRICS", "f1", "matthews"]
