"""CIFAR-10: which of ten things is in a picture of 32 x 32 pixels.

Source: Krizhevsky 2009, Learning multiple layers of features from tiny images, technical report, University of Toronto.
Features are normalised pixels: `edgetk.tasks.images.front_end` has the constants. Data: `docs/data.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import InputError
from edgetk.tasks.images.front_end import FRONT_END

if TYPE_CHECKING:
    import torch

    from edgetk.core.contracts import Predict, Split
    from edgetk.core.figures import Score
    from edgetk.tasks.images.data import ImageData, Layout


class Cifar10:
    """The task: opens two layouts, reads single pictures, scores by top-1 accuracy. No sample is embedded."""

    name = "cifar10"
    front_end: Mapping[str, Any] = FRONT_END
    has_sample = False
    how_to_get = (
        "Download the binary version, cifar-10-binary.tar.gz (162 MB, no licence stated), from\n"
        "  https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz\n"
        "unpack it and hand in the folder cifar-10-batches-bin with --data FOLDER. Parquet files train.parquet and\n"
        "test.parquet with the columns class, file and jpeg work too (pip install 'edgetk[images,parquet]').\n"
        "The Python version holds pickles, which run code when they are opened: it is not read."
    )

    @property
    def augmentations(self) -> Mapping[str, Any]:
        """What training may do to pictures, by the names that recipes use."""
        from edgetk.tasks.images.augment import AUGMENTATIONS

        return AUGMENTATIONS

    def open(self, folder: Path | None, labels: Sequence[str] | None = None) -> ImageData:
        """The data in `folder`: Parquet files or the published binary files. `labels` chooses and orders the classes.

        Raises InputError where nothing is found or no folder is given, UsageError for impossible labels, MissingExtra without
        pyarrow or Pillow.
        """
        from edgetk.tasks.images.data import ImageData

        return ImageData(_layout(folder), labels)

    def score(self, predict: Predict, split: Split, official_only: bool = True) -> Score:
        """Correct answers on a split, by the largest class score.

        Raises PostconditionError where `predict` does not return one finite row of scores per picture.
        """
        from edgetk.tasks._top1 import top1

        return top1(self.name, predict, split, official_only, noun="picture")

    def read(self, path: Path) -> torch.Tensor:
        """One JPEG or PNG file as features (1, 3, 32, 32). Raises InputError unless it is 32 x 32, RGB or grey, and whole."""
        import torch

        from edgetk.tasks.images.pictures import normalise, read_picture

        return normalise(torch.from_numpy(read_picture(Path(path))).unsqueeze(0))

    def describe(self, folder: Path | None) -> list[tuple[str, str]]:
        """What is in `folder`: names and texts, for printing as a table."""
        from edgetk.tasks.images.data import describe

        if folder is None:
            return [("sample", "none: the publisher states no licence; hand in the data with --data FOLDER")]
        return describe(_layout(folder))

    def verify(self, folder: Path | None) -> list[str]:
        """What is wrong with the data in `folder`, one sentence each; an empty list is good news."""
        from edgetk.tasks.images.data import verify

        return verify(_layout(folder))


def _layout(folder: Path | None) -> Layout:
    from edgetk.tasks.images import archive, parquet

    if folder is None:
        raise InputError(
            "cifar10: the data must be handed in, since no sample ships (the publisher states no licence), got no folder; "
            "add --data FOLDER, edgetk data --task cifar10 says where to get it"
        )
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: must be a folder with CIFAR-10, got no such folder; check the path")
    if parquet.is_parquet(folder):
        return parquet.Parquet(folder)
    if (found := archive.find(folder)) is not None:
        return archive.Archive(found)
    got = "the Python version, whose pickles are never opened" if archive.is_pickled(folder) else "neither"
    raise InputError(
        f"{folder}: must hold train.parquet and test.parquet or the binary files data_batch_1.bin and its like, got {got}; "
        "run: edgetk data --task cifar10"
    )


TASK = Cifar10()
