"""What the page needs from edgetk, in one folder: the step graph of a model, and clips of the embedded sample.

python prepare.py FOLDER [MODEL]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

from edgetk.tasks.speech import audio
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.sample import FOLDER, Sample

MODEL = "model.stream.onnx"


def model(folder: Path, name: str) -> None:
    """The step graph, as `edgetk export` proves and writes it."""
    with tempfile.TemporaryDirectory(prefix="web-kws-") as made:
        subprocess.run([sys.executable, "-m", "edgetk", "export", name, "-o", made], check=True)
        written = Path(made, MODEL)
        if not written.is_file():
            sys.exit(f"model {name}: must have a stream form, got none; choose lmuformer, lmuformer-s or lmuformer-xs")
        shutil.copyfile(written, folder / MODEL)


def clips(folder: Path) -> None:
    """The first test clip of each word in the sample as 16-bit WAV, `clips.json` that lists them, and the licence."""
    target = folder / "clips"
    target.mkdir(parents=True, exist_ok=True)
    listed: dict[str, dict[str, str]] = {}
    for clip in Sample().clips("test"):
        if clip.word in listed:
            continue
        assert isinstance(clip.encoded, bytes), "the sample is embedded"
        with wave.open(str(target / f"{clip.word}.wav"), "wb") as file:
            file.setparams((1, 2, fe.SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(audio.decode(clip.encoded, clip.name).astype("<i2").tobytes())
        listed[clip.word] = {"word": clip.word, "file": f"{clip.word}.wav", "original": clip.name, "speaker": clip.speaker}
    (target / "clips.json").write_text(json.dumps(list(listed.values()), indent=1) + "\n")
    for name in ("ATTRIBUTION.txt", "LICENSE.txt"):
        shutil.copyfile(FOLDER / name, target / name)
    with (target / "ATTRIBUTION.txt").open("a") as file:
        file.write("\nHere: the first test clip of each word, decoded to 16-bit WAV; clips.json names the original files.\n")


def main(folder: str, name: str = "lmuformer") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    clips(Path(folder))
    model(Path(folder), name)


if __name__ == "__main__":
    main(*sys.argv[1:])
