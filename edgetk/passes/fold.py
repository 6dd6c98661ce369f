"""Fold batch norms into the layers around them: fewer operators, equal outputs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PreconditionError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Fold:
    """Norms that follow a linear or convolution layer become its weights and bias (Jacob et al. 2018, arXiv:1712.05877, 3.2).

    A module with `fold_norms() -> names` folds itself, exactly, also where a norm stands behind an activation. In any other
    module, a norm right behind its layer in an `nn.Sequential` is folded; norms elsewhere stay.
    """

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = True

    def check(self, bundle: Bundle) -> None:
        """Any torch module will do, and one without norms is left as it is; integer weights cannot take a norm in."""
        from edgetk.models.layers.norm import BatchNorm
        from edgetk.models.layers.quantized import QuantLinear

        kinds = {type(m) for m in bundle.module.modules()}
        if hasattr(bundle.body, "fold_norms") and BatchNorm in kinds and QuantLinear in kinds:
            raise PreconditionError("fold: must come before quantize, got integer weights; change the order in the recipe")

    def __call__(self, bundle: Bundle) -> PassResult:
        body = bundle.module
        names = _fold(body)
        signature = body.stream_signature() if names and hasattr(body, "stream_signature") else None  # type: ignore[operator]
        structure = {"folded": list(names), "signs": _signs(body)} if names else None
        return PassResult(body, bool(names), {"norms_folded": len(names)}, structure, signature)

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        """Fold whatever the fresh body holds, and put signs where trained norms left some; the weights come afterwards."""
        import torch

        from edgetk.models.layers.norm import Sign

        _fold(body)
        for path, width in structure["signs"].items():
            body.set_submodule(path, Sign(torch.ones(width)))
        return body


def _signs(body: nn.Module) -> dict[str, int]:
    """Path and width of every `Sign`: which norms leave one depends on their weights."""
    from edgetk.models.layers.norm import Sign

    return {path: m.sign.numel() for path, m in body.named_modules() if isinstance(m, Sign)}


def _fold(body: nn.Module) -> tuple[str, ...]:
    own = getattr(body, "fold_norms", None)
    if own is not None:
        folded: tuple[str, ...] = own()
        return folded
    return tuple(_fold_sequences(body))


def _fold_sequences(body: nn.Module) -> list[str]:
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    folded = []
    with torch.no_grad():
        for path, parent in body.named_modules():
            if not isinstance(parent, nn.Sequential) or type(parent).forward is not nn.Sequential.forward:
                continue
            for (before, layer), (name, norm) in itertools.pairwise(list(parent.named_children())):
                if getattr(norm, "running_var", None) is None:
                    continue
                fused: nn.Module
                if (type(layer), type(norm)) in ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d)):
                    fused = fuse_conv_bn_eval(layer, norm)  # type: ignore[type-var, arg-type]
                elif type(layer) is nn.Linear and type(norm) is nn.BatchNorm1d:
                    fused = fuse_linear_bn_eval(layer, norm)
                else:
                    continue
                setattr(parent, before, fused)
                setattr(parent, name, nn.Identity())
                folded.append(f"{path}.{name}" if path else name)
    return folded


PASS = Fold
