"""The words of Speech Commands and the orders in which tasks number them. Source: Warden 2018, arXiv:1804.03209."""

from __future__ import annotations

from typing import Final

# fmt: off
#: the 16-word subset: digits to five, then the commands
WORDS_16: Final = (
    "zero", "one", "two", "three", "four", "five", "left", "right", "down", "up", "go", "no", "yes", "stop", "on", "off",
)

#: all 35 words of v0.02, in the order of LMUFormer's published label file
WORDS_35: Final = (
    "backward", "follow", "five", "bed", "zero", "on", "learn", "two", "house", "tree", "dog", "stop", "seven", "eight",
    "down", "six", "forward", "cat", "right", "visual", "four", "wow", "no", "nine", "off", "three", "left", "marvin", "yes",
    "up", "sheila", "happy", "bird", "go", "one",
)

SILENCE: Final = "silence"
UNKNOWN: Final = "unknown"

#: the 12-class task: ten commands, silence, and unknown for every other word
WORDS_12: Final = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", SILENCE, UNKNOWN)
# fmt: on

__all__ = ["SILENCE", "UNKNOWN", "WORDS_12", "WORDS_16", "WORDS_35"]
