"""How a model's numbers are stored in its file: float32 as they are, float16, or int8 with a scale for each output.

A model that is built from an int8 file has float32 weights again, those that the codes stand for. Codes of tables are those
that `quantize` finds (a scale per output column), so that storing a model and quantizing it later round once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from edgetk.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

Store = Literal["float32", "float16", "int8"]
STORES: tuple[Store, ...] = ("float32", "float16", "int8")
#: what the scales of int8 weights are called
SCALE = ".scale"


def check(store: str, module: nn.Module, who: str) -> None:
    """Raise UsageError where `module` cannot be stored as `store`."""
    if store not in STORES:
        raise UsageError(f"{who}: weights must be stored as one of {', '.join(STORES)}, got {store!r}; correct it")
    if store == "int8" and hasattr(module, "settle"):
        raise UsageError(
            f"{who}: int8 storage needs weights that may take any value, got a {type(module).__name__}, whose weights lie on "
            "grids that int8 scales would leave; store float16"
        )


def encode(module: nn.Module, store: Store) -> dict[str, Tensor]:
    """The state of `module` as it is stored.

    Of int8, matrices have a scale per row, (rows, 1, …), and look-up tables (K, 2^tau, h) one per column, (1, 1, h); what
    has one axis is float16. Tensors that are no floating-point numbers stay as they are.
    """
    import torch

    tables = {
        f"{prefix}.{name}" if prefix else name
        for prefix, layer in module.named_modules()
        for name in getattr(layer, "tables_of", ())
    }
    stored: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        kept = value.detach().cpu()
        if store != "float32" and kept.dtype in (torch.float32, torch.float64):
            if store == "int8" and kept.ndim > 1:
                kept, scale = codes(kept, table=name in tables)
                stored[name + SCALE] = scale
            else:
                kept = kept.to(torch.float16)
        stored[name] = kept.clone(memory_format=torch.contiguous_format)  # safetensors refuses tensors that share memory
    return stored


def codes(weight: Tensor, table: bool) -> tuple[Tensor, Tensor]:
    """int8 codes and float32 scales that they are multiplied by; the largest entry of each output gets code 127 or -127."""
    from edgetk.models.layers.memory_layer import column_codes

    columns = weight.float() if table else weight.float().flatten(1).T[None]
    found, scale = column_codes(columns)
    if table:
        return found, scale.view(*(1,) * (weight.ndim - 1), -1)
    return found[0].T.reshape(weight.shape), scale.view(-1, *(1,) * (weight.ndim - 1))


def decode(stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State for a module that has the state `own`: codes are what they stand for, where it wants floating-point numbers."""
    import torch

    found = dict(stored)
    for name, wanted in own.items():
        scale = stored.get(name + SCALE)
        if scale is None or name + SCALE in own or not wanted.is_floating_point() or stored[name].dtype != torch.int8:
            continue
        del found[name + SCALE]
        found[name] = stored[name].float() * scale.float()
    return found


def rounded(module: nn.Module, store: Store) -> None:
    """Give `module` the weights that it will have when it is read again."""
    if store != "float32":
        own = module.state_dict()
        module.load_state_dict(decode(encode(module, store), own), strict=True)
