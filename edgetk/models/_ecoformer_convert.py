"""From one attention to the next with the weights of the one before: reduced -> softmax -> hashed, the published recipe.

Source: EcoFormer, arXiv:2209.09004, and the authors' code: softmax attention over all tokens takes the projections of the
reduced one and drops its reduction; EcoFormer's takes the query's projection for its codes and the value's, and drops the
key's. Each is to be trained on from there. Such a network has the config of the variant that is built with that
attention, so `build(variant).with_body(net)` is its bundle.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from edgetk.core.errors import PreconditionError
from edgetk.models.ecoformer import PyramidTransformer
from edgetk.models.layers.attention import ReducedAttention
from edgetk.models.layers.hashed_attention import HashedAttention, freeze_sigma


def to_msa(net: PyramidTransformer) -> PyramidTransformer:
    """A copy of a network with reduced attention ("sra") that has softmax attention over all tokens instead."""
    _expect(net, "sra", "to_msa")
    made = PyramidTransformer(replace(net.config, attention="msa"))
    weights = dict(net.state_dict())
    for name, layer in net.named_modules():
        if isinstance(layer, ReducedAttention):
            old = {key: weights.pop(f"{name}.{key}") for key in layer.state_dict()}
            for kind in ("weight", "bias"):
                weights[f"{name}.qkv.{kind}"] = torch.cat([old[f"q.{kind}"], old[f"kv.{kind}"]])
                weights[f"{name}.proj.{kind}"] = old[f"proj.{kind}"]
    made.load_state_dict(weights)
    return made.train(net.training)


def to_ecoformer(net: PyramidTransformer) -> PyramidTransformer:
    """A copy of a network with softmax attention ("msa") that has EcoFormer's in all stages but the last.

    Its hashes are not learned: call `learn_hashes` before anything else.
    """
    _expect(net, "msa", "to_ecoformer")
    made = PyramidTransformer(replace(net.config, attention="ecoformer"))
    weights: dict[str, Tensor] = dict(net.state_dict())
    for name, layer in made.named_modules():
        if isinstance(layer, HashedAttention):
            for kind in ("weight", "bias"):
                query, _, value = weights.pop(f"{name}.qkv.{kind}").chunk(3)
                weights |= {f"{name}.to_qk.{kind}": query, f"{name}.to_v.{kind}": value}
            weights |= {f"{name}.hash.{key}": value for key, value in layer.hash.state_dict().items()}
    made.load_state_dict(weights)
    return made.train(net.training)


def to_frozen(net: PyramidTransformer, x: Tensor) -> PyramidTransformer:
    """A copy of a network with EcoFormer's attention whose sigmas are the means over the inputs x of one batch.

    A token's code then depends on this token alone, where the published sigma couples all tokens of a sample: for codes
    that are computed as tokens arrive, and for graphs with one pass less. The outputs change.
    """
    _expect(net, "ecoformer", "to_frozen")
    made = copy.deepcopy(net)
    made.config = replace(net.config, sigma="frozen")
    freeze_sigma(made, x)
    return made


def _expect(net: PyramidTransformer, attention: str, who: str) -> None:
    if net.config.attention != attention:
        raise PreconditionError(
            f"{who}: must be given a network with {attention} attention, got {net.config.attention}; "
            "go from sra to msa, from msa to ecoformer, and from there to frozen"
        )


__all__ = ["to_ecoformer", "to_frozen", "to_msa"]
