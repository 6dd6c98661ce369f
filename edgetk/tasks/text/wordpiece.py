"""Text to token numbers: BERT's uncased WordPiece units, [CLS] a [SEP] or [CLS] a [SEP] b [SEP], padded to a fixed length.

Sources: Devlin et al. 2018, arXiv:1810.04805; the vocabulary is theirs (ATTRIBUTION.txt). The work is done by the package
`tokenizers`, which the extra "text" brings.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgetk.core.errors import MissingExtra

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY: Final = Path(__file__).parent / "vocabulary.txt.gz"
#: of the uncompressed vocabulary, one unit a line
VOCABULARY_SHA256: Final = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
PAD, UNKNOWN, CLS, SEP, MASK = 0, 100, 101, 102, 103


@cache
def _tokenizer(length: int) -> Any:
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    except ImportError as error:
        raise MissingExtra("text", "tokenizers", "text") from error
    units = gzip.decompress(VOCABULARY.read_bytes()).decode().splitlines()
    made = Tokenizer(models.WordPiece({unit: i for i, unit in enumerate(units)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    made.enable_truncation(length)  # of a pair, the longer one is cut first
    made.enable_padding(length=length, pad_id=PAD, pad_token="[PAD]")
    return made


def front_end(tokens: int, sentences: int) -> dict[str, Any]:
    """What another runtime needs to make the same token numbers, for a model's metadata."""
    return {
        "kind": "wordpiece",
        "vocabulary_sha256": VOCABULARY_SHA256,
        "lower_case": True,
        "tokens": tokens,
        "sentences": sentences,
        "pad": PAD,
        "unknown": UNKNOWN,
        "cls": CLS,
        "sep": SEP,
    }


def encode(texts: Sequence[tuple[str, ...]], length: int) -> Tensor:
    """Token numbers (N, length), int32, of sentences (a,) or pairs (a, b). Longer ones are cut. Raises MissingExtra."""
    import numpy as np
    import torch

    inputs = [text[0] if len(text) == 1 else text for text in texts]
    rows = [e.ids for e in _tokenizer(length).encode_batch(inputs)]
    return torch.from_numpy(np.asarray(rows, dtype=np.int32).reshape(len(rows), length))


__all__ = ["CLS", "MASK", "PAD", "SEP", "UNKNOWN", "VOCABULARY", "VOCABULARY_SHA256", "encode", "front_end"]
