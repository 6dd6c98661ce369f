"""Seeing what layers read while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def inputs_of(body: nn.Module, takers: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Within the block, each taker is given what the layer of its name reads, at every call."""
    handles = []
    for name, take in takers.items():

        def hook(module: nn.Module, args: tuple[Tensor, ...], take: Callable[[Tensor], None] = take) -> None:
            take(args[0])

        handles.append(body.get_submodule(name).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
