"""Make edgetk/tasks/sample from a Parquet folder of Speech Commands: same input, same files, byte for byte.

    python benchmarks/make_sample.py FOLDER [OUTPUT]

Takes 10 test and 16 validation clips of each of the 16 words, from the official v0.02 lists only. For every word in turn it
takes the clip whose speaker was used least so far, and of those the first by the SHA1 of its samples, so that many speakers
are heard and the choice has nothing to do with how a clip sounds. The encoded bytes stay as they are.
"""

from __future__ import annotations

import csv
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from edgetk.tasks._tables import table
from edgetk.tasks.speech.words import WORDS_16

CLIPS = {"test": 10, "validation": 16}
COLUMNS = ("path", "word", "speaker", "source", "in_v2_list", "sha1_pcm", "codec", "audio")
SUFFIX = {"flac": ".flac", "opus": ".opus"}


def choose(folder: Path, split: str, per_word: int) -> list[dict[str, Any]]:
    columns = table(folder, split, COLUMNS)
    rows = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*(columns[name] for name in COLUMNS), strict=True)]
    free = sorted((row for row in rows if row["in_v2_list"]), key=lambda row: str(row["sha1_pcm"]))
    used: Counter[str] = Counter()
    chosen = []
    for _ in range(per_word):
        for word in WORDS_16:
            row = min((row for row in free if row["word"] == word), key=lambda row: used[row["speaker"]])
            free.remove(row)
            used[row["speaker"]] += 1
            chosen.append(row)
    return sorted(chosen, key=lambda row: (WORDS_16.index(row["word"]), row["path"]))


def write(folder: Path, output: Path) -> None:
    index = []
    for split, per_word in CLIPS.items():
        with zipfile.ZipFile(output / f"{split}.zip", "w", zipfile.ZIP_STORED) as content:
            for row in choose(folder, split, per_word):
                name = str(Path(row["path"]).with_suffix(SUFFIX[row["codec"]]))
                content.writestr(zipfile.ZipInfo(name), row["audio"])
                facts = {key: row[key] for key in ("path", "word", "speaker", "source", "sha1_pcm")}
                index.append({"split": split, "file": name, **facts, "in_v2_list": int(row["in_v2_list"])})
    with (output / "index.csv").open("w", newline="", encoding="utf-8") as file:
        table_file = csv.DictWriter(file, list(index[0]), lineterminator="\n")
        table_file.writeheader()
        table_file.writerows(index)


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "edgetk" / "tasks" / "sample"
    write(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
