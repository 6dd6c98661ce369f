"""Constants of the picture front end: what another runtime needs to compute the same features."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

#: height and width in pixels
SIZE: Final = 32
CHANNELS: Final = 3
#: of the 50,000 published training pictures, pixels in [0, 1], by channel: red, green, blue
MEAN: Final = (0.49140, 0.48216, 0.44653)
STD: Final = (0.24703, 0.24349, 0.26159)
#: classes in the order of the published label numbers
CLASSES: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

FRONT_END: Final = MappingProxyType[str, Any](
    {
        "kind": "pixels",
        "height": SIZE,
        "width": SIZE,
        "channels": "rgb",
        "layout": "channel, row, column",
        "pixel_scale": 255,
        "mean": MEAN,
        "std": STD,
    }
)

__all__ = ["CHANNELS", "CLASSES", "FRONT_END", "MEAN", "SIZE", "STD"]
