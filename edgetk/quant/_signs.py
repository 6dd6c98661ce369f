"""Weights as signs and one scale per output channel, by brevitas's binary quantizer with the mean magnitude as scale."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def signs(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes +1 and -1 (int8, shaped as `weight`; +1 for 0) and scales (out,) of a weight (out, …).

    Source: XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279, eq. 6: the scale that is best for the signs is the mean of |w|.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # brevitas warns about its own deprecations when it is imported
        import brevitas.nn as qnn
        from brevitas.core.quant import BinaryQuant
        from brevitas.inject.enum import ScalingImplType, ScalingPerOutputType, StatsOp
        from brevitas.quant import SignedBinaryWeightPerTensorConst

        class BinaryPerChannel(SignedBinaryWeightPerTensorConst):  # type: ignore[misc]
            tensor_quant = BinaryQuant  # without the clamp, which would change the weights in place
            scaling_impl_type = ScalingImplType.STATS
            scaling_stats_op = StatsOp.AVE
            scaling_per_output_type = ScalingPerOutputType.CHANNEL

        flat = weight.flatten(1)
        twin = qnn.QuantLinear(flat.shape[1], flat.shape[0], bias=False, weight_quant=BinaryPerChannel)
        twin.load_state_dict({"weight": flat}, strict=False)
        twin.eval()
        with torch.no_grad():
            made = twin.quant_weight()
    codes = torch.where(made.value > 0, 1, -1).to(torch.int8)
    return codes.view(weight.shape), made.scale.flatten().detach().float()


__all__ = ["signs"]
