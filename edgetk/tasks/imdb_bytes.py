"""Whether a review is favourable, from its first 1000 bytes: the text task of Long Range Arena at its configured length.

Sources: Maas et al., ACL 2011, for the reviews; Tay et al. 2020, arXiv:2011.04006, section 2.2.2, for the task. That benchmark
chooses models on the test part; here a tenth of the training part is held out for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.tasks.imdb.task import ReviewTask

if TYPE_CHECKING:
    from torch import Tensor


class ImdbBytes(ReviewTask):
    """Tokens are bytes; 0, which does not occur in text, is padding, and what a hidden byte becomes."""

    name = "imdb-bytes"
    length = 1000
    hidden, structure = 0, 0
    front_end: ClassVar[Mapping[str, Any]] = {"kind": "bytes", "length": 1000, "pad": 0}

    def encode(self, texts: Sequence[bytes]) -> Tensor:
        """(N, 1000) uint8."""
        from edgetk.tasks.imdb.texts import as_bytes

        return as_bytes(texts, self.length)


TASK = ImdbBytes()
