"""What quantization is tried on: made-up inputs of two kinds, small users' modules, and a narrow LMUFormer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Split
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.models.lmuformer import build

FRAMES, FEATURES, CLASSES = 16, 8, 3


class Noise:
    """Random inputs, labelled with what a model said of them before: any change of a decision is a lost answer."""

    labels = ("one", "two", "three")
    origin = "made up"

    def __init__(self, n: int = 64, shape: tuple[int, ...] = (FRAMES, FEATURES), scale: float = 1.0) -> None:
        self.features = scale * torch.randn(n, *shape, generator=torch.Generator().manual_seed(7))
        self.classes = torch.zeros(n, dtype=torch.int64)

    def split(self, name: str) -> Split:
        return Split(name, self.features, self.classes, self.origin)

    def calibration(self, n: int) -> Tensor:
        return self.features[:n]


def labelled(bundle: Bundle, data: Noise) -> Bundle:
    """The bundle with `data`, all of it answered right."""
    with torch.no_grad():
        data.classes = bundle.predict()(data.features).argmax(1)
    return replace(bundle, data=data, labels=data.labels)


def user(net: nn.Module, data: Noise) -> Bundle:
    """A user's module for whole inputs shaped like the data's."""
    bundle = Bundle(
        name="user",
        body=net.eval(),
        signature=Signature((TensorSpec("x", ("batch", *data.features.shape[1:])),), (TensorSpec("y", ("batch", CLASSES)),)),
        task="speech-commands",
    )
    return labelled(bundle, data)


def lmuformer() -> Bundle:
    """A narrow LMUFormer, folded, of the size that quantization takes whole with min_weights = 64."""
    torch.manual_seed(0)
    bundle = build("xs", widths=(16, 16, 16, 16), order=8, hidden=16, ffn=32, features=FEATURES, frames=FRAMES, classes=CLASSES)
    net = bundle.module
    with torch.no_grad():
        net.get_parameter("mixer.hidden.weight").normal_(0, 0.3)
        net.get_parameter("head.weight").normal_(0, 0.5)
    net.fold_norms()  # type: ignore[operator]
    bundle = replace(bundle, signature=net.stream_signature())  # type: ignore[operator]
    return labelled(bundle, Noise())


class Adder(nn.Module):
    """s_t = s_{t-1} + x_t, y = W s: the state grows as long as the stream goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, CLASSES)

    def clip(self, x: Tensor) -> Tensor:
        """x (B, F, T), time last -> (B, K)."""
        y: Tensor = self.read(x.sum(dim=2))
        return y

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        s = s + x[:, :, 0]
        return self.read(s)[:, :, None], s


def adder(data: Noise) -> Bundle:
    torch.manual_seed(0)
    frames = data.features.shape[2]
    bundle = Bundle(
        name="adder",
        body=Adder().eval(),
        signature=Signature(
            (TensorSpec("x", (1, 4, 1), axes="B F T"),),
            (TensorSpec("y", (1, CLASSES, 1), axes="B K T"),),
            (StateSpec(TensorSpec("state_sum", (1, 4), axes="B C")),),
            period_s=0.01,
        ),
        clip=Signature((TensorSpec("x", ("batch", 4, frames), axes="B F T"),), (TensorSpec("y", ("batch", CLASSES)),)),
        task="speech-commands",
    )
    return labelled(bundle, data)
