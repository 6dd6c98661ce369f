"""Arithmetic that must not be rounded to 16 bits, inside networks that run under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block without autocast on x's device; nothing where the device has none ("meta", which counts but does not compute)."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32 where it has fewer bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
