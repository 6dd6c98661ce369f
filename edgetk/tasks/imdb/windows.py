"""Windows of a text as inputs of a model that says which byte comes next: all places to train on, the last one to be judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from edgetk.core.contracts import Split
from edgetk.core.errors import InputError, UsageError
from edgetk.tasks.imdb.reviews import Layout, joined, split_of
from edgetk.tasks.training.draws import integers

#: bytes that a model sees
LENGTH: Final = 256
#: windows of the validation and test splits, evenly spaced
WINDOWS: Final = 4096
NAMES: Final = tuple(chr(n) if 32 < n < 127 else f"0x{n:02x}" for n in range(256))


@dataclass(frozen=True)
class Augmentation:
    """`shift`: windows start anywhere, not only at multiples of their length."""

    shift: bool = True


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType({"none": Augmentation(shift=False), "shift": Augmentation()})


class ByteWindows:
    """An opened text. Features are bytes as float32 (N, LENGTH), the label is the byte behind them."""

    labels = NAMES
    augmentations: Mapping[str, Augmentation] = AUGMENTATIONS

    def __init__(self, layout: Layout, who: str, labels: Sequence[str] | None = None) -> None:
        if labels is not None and tuple(labels) != NAMES:
            raise UsageError(f"{who}: labels must be all 256 bytes, got {len(labels)} labels; leave --labels out")
        self.layout, self.who, self.origin = layout, who, layout.title
        self._texts: dict[str, Tensor] = {}

    def text(self, split: str) -> Tensor:
        """All reviews of a split as one text, uint8. Raises InputError where it is shorter than a window and a byte."""
        if split not in self._texts:
            content = joined(split_of(self.layout, split, self.who)[0])
            if len(content) <= LENGTH:
                raise InputError(
                    f"{self.who}: the split {split} must have more than {LENGTH} bytes, got {len(content)}; add reviews"
                )
            self._texts[split] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return self._texts[split]

    def split(self, name: str) -> Split:
        """Windows evenly spaced over the split, and the byte behind each."""
        text = self.text(name)
        starts = _spaced(len(text) - LENGTH, WINDOWS)
        labels = text[starts + LENGTH].long()
        return Split(name, _cut(text, starts), labels, f"{self.layout.title}, {name}: {len(labels)} windows of {LENGTH} bytes")

    def calibration(self, n: int) -> Tensor:
        """`n` windows evenly spaced over the training split."""
        text = self.text("train")
        room = len(text) - LENGTH
        if n > room:
            raise InputError(f"{self.who}: at most {room} calibration windows are there, got a wish for {n}; ask for fewer")
        return _cut(text, _spaced(room, n))

    def batches(
        self, device: torch.device | str, augmentation: Augmentation | None = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        """Rows of the training split (B,) -> windows (B, LENGTH) and targets (B, LENGTH, 256): the byte behind each byte."""
        shift = augmentation is not None and augmentation.shift
        text = self.text("train").to(device)
        last = len(text) - LENGTH - 1
        steps, classes = torch.arange(LENGTH, device=device), torch.arange(256, device=device)

        def draw(rows: Tensor) -> tuple[Tensor, Tensor]:
            starts = rows * LENGTH
            if shift:
                starts = (starts + integers(rows.device, len(rows), 0, LENGTH)).clamp_max(last)
            places = starts[:, None] + steps
            return text[places].float(), (text[places + 1].long()[..., None] == classes).float()

        return draw, last // LENGTH + 1


def _spaced(room: int, n: int) -> Tensor:
    """`n` evenly spaced starts in [0, room), or all of them where there are fewer."""
    count = min(n, room)
    return torch.arange(count) * room // count


def _cut(text: Tensor, starts: Tensor) -> Tensor:
    return text[starts[:, None] + torch.arange(LENGTH)].float()


__all__ = ["AUGMENTATIONS", "LENGTH", "NAMES", "WINDOWS", "Augmentation", "ByteWindows"]
