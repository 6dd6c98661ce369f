"""Speech Commands: which word is said in one second of sound. Source: Warden 2018, arXiv:1804.03209.

Features as in LMUFormer (arXiv:2402.04882): `edgetk.tasks.speech.front_end` has the constants. Data: `docs/data.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import InputError
from edgetk.tasks.speech.front_end import FRONT_END
from edgetk.tasks.speech.words import WORDS_12, WORDS_16, WORDS_35

if TYPE_CHECKING:
    import torch

    from edgetk.core.contracts import Predict, Split
    from edgetk.core.figures import Score
    from edgetk.tasks.speech.clips import Layout
    from edgetk.tasks.speech.data import SpeechData


class SpeechCommands:
    """The task: opens any of three layouts, reads single files, scores by top-1 accuracy."""

    name = "speech-commands"
    front_end: Mapping[str, Any] = FRONT_END
    #: the published ways to number classes: for `open(labels=...)`
    label_sets: Mapping[str, tuple[str, ...]] = {"16": WORDS_16, "12": WORDS_12, "35": WORDS_35}
    how_to_get = (
        "Download speech_commands_v0.02.tar.gz (2.3 GB, CC BY 4.0) from\n"
        "  https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz\n"
        "unpack it into a folder of its own and hand that folder in with --data FOLDER.\n"
        "Your own recordings work too: one folder per word, 16 kHz mono WAV or FLAC of at most 1 s, named\n"
        "<speaker>_nohash_<n>.wav, so that no speaker is in two splits. Without --data the embedded sample is used."
    )

    @property
    def augmentations(self) -> Mapping[str, Any]:
        """What training may do to clips, by the names that recipes use."""
        from edgetk.tasks.speech.augment import AUGMENTATIONS

        return AUGMENTATIONS

    def open(self, folder: Path | None, labels: Sequence[str] | None = None) -> SpeechData:
        """The data in `folder` (Parquet files or a folder per word), or the embedded sample.

        `labels` chooses and orders the classes; "unknown" gathers other words and "silence" is cut from background noise.
        Raises InputError where nothing is found, UsageError for impossible labels, MissingExtra without pyarrow.
        """
        from edgetk.tasks.speech.data import SpeechData

        return SpeechData(_layout(folder), labels)

    def score(self, predict: Predict, split: Split, official_only: bool = True) -> Score:
        """Correct answers on a split, by the largest class score; `official_only` counts the clips of the official lists.

        Raises PostconditionError where `predict` does not return one finite row of scores per clip.
        """
        from edgetk.tasks._top1 import top1

        return top1(self.name, predict, split, official_only)

    def read(self, path: Path) -> torch.Tensor:
        """One sound file as features (1, 128, 128). Raises InputError unless it is mono, 16 kHz, complete and at most 1 s."""
        import torch

        from edgetk.tasks.speech.audio import read_clip
        from edgetk.tasks.speech.log_mel import LogMel

        with torch.no_grad():
            features: torch.Tensor = LogMel()(torch.from_numpy(read_clip(Path(path))).unsqueeze(0))
        return features

    def describe(self, folder: Path | None) -> list[tuple[str, str]]:
        """What is in `folder`: names and texts, for printing as a table."""
        from edgetk.tasks.speech.data import describe

        return describe(_layout(folder))

    def verify(self, folder: Path | None) -> list[str]:
        """What is wrong with the data in `folder`, one sentence each; an empty list is good news."""
        from edgetk.tasks.speech.data import verify

        return verify(_layout(folder))


def _layout(folder: Path | None) -> Layout:
    from edgetk.tasks.speech.archive import Archive, is_archive
    from edgetk.tasks.speech.parquet import Parquet, is_parquet
    from edgetk.tasks.speech.sample import Sample

    if folder is None:
        return Sample()
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: must be a folder with speech data, got no such folder; check the path")
    if is_parquet(folder):
        return Parquet(folder)
    if is_archive(folder):
        return Archive(folder)
    raise InputError(
        f"{folder}: must hold test.parquet and its like or one folder of sounds per word, got neither; run: edgetk data"
    )


TASK = SpeechCommands()
