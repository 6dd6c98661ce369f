"""Operators of edgetk's own in an exported graph: under `as_nodes` a layer leaves one node where it would compute.

A layer asks `wanted()` and, where that is true, returns `node(…)`. The exporter gives each such node a function of standard
operators in the same file, so that runtimes that do not know the operator compute it all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

DOMAIN, VERSION = "edgetk", 1

_WANTED: ContextVar[bool] = ContextVar("edgetk_operator_nodes", default=False)


@contextlib.contextmanager
def as_nodes(on: bool = True) -> Iterator[None]:
    """While a graph is captured, layers that have an operator of their own become one node of it; nothing where not `on`."""
    token = _WANTED.set(on)
    try:
        yield
    finally:
        _WANTED.reset(token)


def wanted() -> bool:
    """True where a layer has to leave a node instead of its result."""
    return _WANTED.get()


def node(name: str, inputs: Sequence[Tensor], like: Tensor, **attributes: Any) -> Tensor:
    """The one output of a node `edgetk::<name>`, with the shape and type of `like`. Only while a graph is captured."""
    made: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", tuple(inputs), attrs=attributes, dtype=like.dtype, shape=like.shape, version=VERSION
    )
    return made


__all__ = ["DOMAIN", "VERSION", "as_nodes", "node", "wanted"]
