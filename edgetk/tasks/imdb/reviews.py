"""IMDb reviews in two layouts: Parquet files (columns text and label), or the published archive's folders of text files.

Source: Maas et al., ACL 2011, Learning word vectors for sentiment analysis. Reviews are bytes in UTF-8; label 0 is negative,
1 positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Protocol

from edgetk.core.errors import InputError, UsageError
from edgetk.tasks._tables import files, table

LABELS: Final = ("negative", "positive")
PARTS: Final = ("train", "test")
SPLITS: Final = ("train", "validation", "test")
#: every so many-th review of the training part is held out, from the first one on, in the stored order
HELD_OUT: Final = 10
HOW_TO_GET: Final = (
    "Download the archive (84 MB, no licence stated; cite Maas et al. 2011) from\n"
    "  https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz\n"
    "unpack it and hand in the folder aclImdb with --data FOLDER. Parquet files train.parquet and test.parquet with the\n"
    "columns text and label work too (pip install 'edgetk[parquet]')."
)
#: what `edgetk data` prints without a folder
NO_SAMPLE: Final = ("sample", "none: the publisher states no licence; hand in the data with --data FOLDER")


class Layout(Protocol):
    """A place where reviews are; `title` describes it in the report."""

    title: str

    def stored(self) -> tuple[str, ...]:
        """The parts that are there."""
        ...

    def read(self, part: str) -> tuple[list[bytes], list[int]]:
        """Texts and labels of a part, in the stored order."""
        ...


class Parquet:
    """A folder of Parquet files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.title = f"IMDb reviews, Parquet folder {folder.name}"

    def stored(self) -> tuple[str, ...]:
        return tuple(part for part in PARTS if files(self.folder, part))

    def read(self, part: str) -> tuple[list[bytes], list[int]]:
        rows = table(self.folder, part, ("text", "label"), "imdb")
        for label in set(rows["label"]) - {0, 1}:
            raise InputError(f"{self.folder}: labels of {part} must be 0 or 1, got {label!r}; correct the file")
        return [text.encode() for text in rows["text"]], [int(label) for label in rows["label"]]


class Archive:
    """The published folders train/neg, train/pos, test/neg and test/pos, one file a review."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.title = f"IMDb reviews, archive folder {folder.name}"

    def stored(self) -> tuple[str, ...]:
        return tuple(part for part in PARTS if all((self.folder / part / name).is_dir() for name in ("neg", "pos")))

    def read(self, part: str) -> tuple[list[bytes], list[int]]:
        paths = [(path, label) for label, name in enumerate(("neg", "pos")) for path in self._files(part, name)]
        return [path.read_bytes() for path, _ in paths], [label for _, label in paths]

    def _files(self, part: str, name: str) -> list[Path]:
        return sorted((self.folder / part / name).glob("*.txt"))


def layout(folder: Path | None, who: str) -> Layout:
    """Where the reviews in `folder` are. Raises InputError where there are none."""
    if folder is None:
        raise InputError(
            f"{who}: the data must be handed in, since no sample ships (the publisher states no licence), got no folder; "
            f"add --data FOLDER, edgetk data --task {who} says where to get it"
        )
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: must be a folder with IMDb reviews, got no such folder; check the path")
    parquet = Parquet(folder)
    if parquet.stored():
        return parquet
    for place in (folder, folder / "aclImdb"):
        if Archive(place).stored():
            return Archive(place)
    raise InputError(
        f"{folder}: must hold train.parquet and test.parquet, or train and test with folders neg and pos, got neither; "
        f"run: edgetk data --task {who}"
    )


def split_of(source: Layout, split: str, who: str) -> tuple[list[bytes], list[int]]:
    """Texts and labels of a split: every tenth review of the training part is "validation", and never trained on.

    Raises UsageError for another split, InputError where the part is missing or empty.
    """
    if split not in SPLITS:
        raise UsageError(f"{who}: a split must be one of {', '.join(SPLITS)}, got {split!r}; correct it")
    part = "test" if split == "test" else "train"
    if part not in source.stored():
        raise InputError(f"{who}: {source.title} must hold the part {part}, got {', '.join(source.stored())}; add it")
    texts, labels = source.read(part)
    chosen = range(len(texts))
    if part == "train":
        chosen = [i for i in chosen if (i % HELD_OUT == 0) == (split == "validation")]  # type: ignore[assignment]
    if not chosen:
        raise InputError(f"{who}: the split {split} of {source.title} must hold reviews, got none; add some")
    return [texts[i] for i in chosen], [labels[i] for i in chosen]


def describe(source: Layout, who: str) -> list[tuple[str, str]]:
    """What is there, for printing: layout, reviews and bytes per split, licence."""
    facts = [("layout", source.title)]
    for split in SPLITS:
        if ("test" if split == "test" else "train") in source.stored():
            texts, labels = split_of(source, split, who)
            facts.append((split, f"{len(texts)} reviews, {sum(labels)} positive, {sum(map(len, texts))} bytes"))
    return [*facts, ("licence", "none stated by the publisher; cite Maas et al. 2011, ACL")]


def one_file(path: Path) -> bytes:
    """The bytes of a text file. Raises InputError where it cannot be read or is empty."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: must be a readable file, got: {error.strerror}; check the path") from error
    if not content:
        raise InputError(f"{path}: must hold at least one byte, got none; write some text")
    return content


def verify(source: Layout) -> list[str]:
    """What is wrong, one sentence each: missing parts, empty reviews, text that is not UTF-8, reviews of both parts."""
    problems = [f"{part}: no reviews of it" for part in PARTS if part not in source.stored()]
    seen: dict[str, set[bytes]] = {}
    for part in source.stored():
        texts, _ = source.read(part)
        problems += [f"{part}: review {i} is empty" for i, text in enumerate(texts) if not text]
        problems += [f"{part}: review {i} is not UTF-8" for i, text in enumerate(texts) if not _is_text(text)]
        seen[part] = set(texts)
    if len(seen) == len(PARTS) and (shared := len(seen["train"] & seen["test"])):
        problems.append(f"{shared} reviews are in train and in test")
    return problems


class StoredReviews:
    """What every task on these reviews says about them. No sample is embedded."""

    name: ClassVar[str]
    has_sample: ClassVar[bool] = False
    how_to_get: ClassVar[str] = HOW_TO_GET

    def describe(self, folder: Path | None) -> list[tuple[str, str]]:
        """What is in `folder`: names and texts, for printing as a table."""
        return [NO_SAMPLE] if folder is None else describe(layout(folder, self.name), self.name)

    def verify(self, folder: Path | None) -> list[str]:
        """What is wrong with the data in `folder`, one sentence each; an empty list is good news."""
        return verify(layout(folder, self.name))


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def joined(texts: Sequence[bytes]) -> bytes:
    """All reviews as one text, each ended by a zero byte."""
    return b"".join(text + b"\0" for text in texts)


__all__ = [
    "HELD_OUT",
    "HOW_TO_GET",
    "LABELS",
    "Archive",
    "Layout",
    "Parquet",
    "StoredReviews",
    "describe",
    "joined",
    "layout",
    "one_file",
    "split_of",
    "verify",
]
