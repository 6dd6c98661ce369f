"""Whether a review is favourable, from its first 512 WordPiece units.

Sources: Maas et al., ACL 2011, for the reviews; Devlin et al. 2018, arXiv:1810.04805, for the units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.tasks.imdb.task import ReviewTask
from edgetk.tasks.text import wordpiece

if TYPE_CHECKING:
    from torch import Tensor


class ImdbTokens(ReviewTask):
    """Tokens are units of BERT's uncased vocabulary, [CLS] and [SEP] around them, 0 behind."""

    name = "imdb-tokens"
    length = 512
    hidden, structure = wordpiece.MASK, wordpiece.SEP
    front_end: ClassVar[Mapping[str, Any]] = wordpiece.front_end(tokens=512, sentences=1)

    def encode(self, texts: Sequence[bytes]) -> Tensor:
        """(N, 512) int32."""
        from edgetk.tasks.imdb.texts import as_units

        return as_units(texts, self.length, self.name)


TASK = ImdbTokens()
