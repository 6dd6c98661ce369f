"""What the LMUFormers share as streams: look-ahead, the validity of frames, start, flush, and how they are bundled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import Signature, StateSpec, TensorSpec

LOOKAHEAD = 5
PERIOD_S = 0.010
#: what each entry of `state_valid` becomes: the newest frame is as valid as entry 0 says, the others age
SHIFT = (0, *range(LOOKAHEAD))


class FrameStream(nn.Module, ABC):
    """A network over frames whose output is `LOOKAHEAD` frames late.

    `config` has `features` and `classes`, `head` is the last layer. The first state is `state_valid`: entry 0 says whether the
    frames to come lie inside the clip, entries 1 to 5 whether the last five did.
    """

    config: Any  # the dataclass of the family
    head: nn.Linear

    @abstractmethod
    def stream_states(self) -> tuple[StateSpec, ...]:
        """All states but `state_valid`."""

    def stream_signature(self) -> Signature:
        """The stream form: one frame in, running logits and states out."""
        return Signature(
            inputs=(TensorSpec("features", (1, 1, self.config.features), axes="B T F"),),
            outputs=(TensorSpec("logits", (1, 1, self.config.classes), axes="B T K"),),
            state=(state("valid", 1 + LOOKAHEAD, init=(1.0,) + (0.0,) * LOOKAHEAD), *self.stream_states()),
            period_s=PERIOD_S,
            lookahead_s=LOOKAHEAD * PERIOD_S,
        )

    def zero_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """The state at the start of a stream."""
        device = self.head.weight.device
        return tuple(_start(s, batch).to(device) for s in self.stream_signature().state)

    def flush(self, *state: Tensor) -> tuple[Tensor, ...]:
        """Finish the clip: the decisions (B, 5, K) that waited for look-ahead, and the last state."""
        valid = state[0].clone()
        valid[:, 0] = 0
        zeros = valid.new_zeros(len(valid), LOOKAHEAD, self.config.features)
        decisions: tuple[Tensor, ...] = self(zeros, valid, *state[1:])
        return decisions

    def macs(self) -> dict[str, int]:
        """Multiply-accumulates per frame of the stream form, by part."""
        linear = {"embed": 0, "mixer": 0, "channels": 0, "head": 0}
        for name, weight in self.products():
            linear[name.split(".")[0]] += weight.numel()
        return linear

    def products(self) -> Iterator[tuple[str, Tensor]]:
        """Name and weight (out, in) of every linear map, frozen and integer ones included."""
        for name, layer in self.named_modules():
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() == 2:
                yield name, weight


def aged(valid: Tensor) -> Tensor:
    """`state_valid` (B, 6) one frame later."""
    return valid.index_select(1, torch.tensor(SHIFT, device=valid.device))


def state(name: str, width: int, holds: str = "values", init: tuple[float, ...] = ()) -> StateSpec:
    """The state `state_<name>` (1, width)."""
    return StateSpec(TensorSpec(f"state_{name}", (1, width), axes="B C"), init, holds)


def bundled(net: FrameStream, family: str, variant: str, counterpart: str = "") -> Bundle:
    """`net` as the variant of a family of the zoo, made for Speech Commands."""
    shape = net.config
    return Bundle(
        name=family if variant == "base" else f"{family}-{variant}",
        body=net,
        signature=net.stream_signature(),
        clip=Signature(
            inputs=(TensorSpec("features", ("batch", shape.frames, shape.features), axes="B T F"),),
            outputs=(TensorSpec("logits", ("batch", shape.classes), axes="B K"),),
        ),
        source={"model": family, "variant": variant, "config": {**asdict(shape), "widths": list(shape.widths)}},
        task="speech-commands",
        counterpart=counterpart,
    )


def _start(spec: StateSpec, batch: int) -> Tensor:
    shape = spec.spec.concrete()[1:]
    first = torch.tensor(spec.init).view(1, *shape) if spec.init else torch.zeros(1, *shape)
    return first.expand(batch, *shape).clone()
