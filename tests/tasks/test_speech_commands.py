"""The task: embedded sample, published folder layout, Parquet, labels, splits, scores."""

from __future__ import annotations

import csv
import hashlib
import os
import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgetk.core.contracts import Data, Split, Task
from edgetk.core.errors import InputError, MissingExtra, PostconditionError, UsageError
from edgetk.tasks.speech import parquet, sample, waves
from edgetk.tasks.speech.audio import decode
from edgetk.tasks.speech.clips import balanced, cut_silence
from edgetk.tasks.speech.splits import speaker, split_of
from edgetk.tasks.speech.words import WORDS_12, WORDS_16, WORDS_35
from edgetk.tasks.speech_commands import TASK

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout, made of the embedded sample; the training clips are the validation ones under other names."""
    folder = tmp_path_factory.mktemp("archive")
    for split, file in LISTS.items():
        names = []
        for clip in sample.Sample().clips(split):
            assert isinstance(clip.encoded, bytes)
            samples = decode(clip.encoded, clip.name)
            path = folder / clip.name
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, samples, 16000)
            names.append(clip.name)
            if split == "validation":
                soundfile.write(path.with_name(f"0000{path.name}"), samples[:8000], 16000)
        (folder / file).write_text("\n".join(names) + "\n")
    noise = folder / "_background_noise_"
    noise.mkdir()
    random = np.random.default_rng(0)
    for name in ("hum", "hiss"):
        soundfile.write(noise / f"{name}.wav", random.integers(-900, 900, 12 * 16000, dtype=np.int16), 16000)
    (noise / "README.md").write_text("not a sound")
    return folder


@pytest.fixture(scope="session")
def official() -> Path:
    folder = Path(os.environ.get("EDGETK_DATA", "")) / "speech_commands"
    if "EDGETK_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_DATA is not set to a folder that holds speech_commands/")
    return folder


# the embedded sample


def test_fulfils_the_contract() -> None:
    task: Task = TASK
    data: Data = task.open(None)
    split: Split = data.split("test")
    assert task.name == "speech-commands"
    assert task.front_end["sample_rate"] == 16000
    assert split.features.shape == (160, 128, 128)
    assert split.features.dtype == torch.float32
    assert split.labels.dtype == torch.int64
    assert split.official is not None
    assert split.official.all()
    assert data.split("test") is split


def test_sample_is_balanced_and_says_what_it_is() -> None:
    data = TASK.open(None)
    assert data.labels == WORDS_16
    assert data.split("test").labels.bincount().tolist() == [10] * 16
    assert data.split("validation").labels.bincount().tolist() == [16] * 16
    text = "Speech Commands sample, 16 words (v0.01 audio, official speaker split), embedded, test n=160 of the official lists"
    assert data.origin == data.split("test").origin == text
    assert "validation n=256" in data.split("validation").origin


def test_sample_size_and_attribution() -> None:
    sizes = {path.name: path.stat().st_size for path in sample.FOLDER.iterdir()}
    assert sum(sizes.values()) <= 4_000_000
    assert sizes["test.zip"] <= 2_400_000
    assert sizes["validation.zip"] <= 1_500_000
    text = (sample.FOLDER / "ATTRIBUTION.txt").read_text()
    for fact in ("Pete Warden", "CC BY 4.0", "arXiv:1804.03209", "Changes:"):
        assert fact in text
    assert "Attribution 4.0 International" in (sample.FOLDER / "LICENSE.txt").read_text()


def test_sample_has_many_speakers_and_shares_none() -> None:
    speakers = {split: {clip.speaker for clip in sample.Sample().clips(split, audio=False)} for split in LISTS}
    assert len(speakers["test"]) >= 100
    assert len(speakers["validation"]) >= 150
    assert not speakers["test"] & speakers["validation"]


def test_sample_clips_are_the_indexed_sounds() -> None:
    with (sample.FOLDER / "index.csv").open(newline="") as file:
        index = {row["path"]: row for row in csv.DictReader(file)}
    clips = sample.Sample().clips("test")
    for clip in clips:  # lossless, so the samples still have the recorded hash
        assert isinstance(clip.encoded, bytes)
        samples = decode(clip.encoded, clip.name)
        assert hashlib.sha1(samples.astype("<i2").tobytes()).hexdigest() == index[clip.name]["sha1_pcm"]
        assert clip.name == f"{clip.word}/{Path(clip.name).name}"
        assert split_of(clip.speaker) == "test"
        assert index[clip.name]["source"]


def test_sample_has_no_training_split_and_no_noise() -> None:
    data = TASK.open(None)
    with pytest.raises(InputError, match=r"must hold the split train, got only validation, test; hand in a folder"):
        data.split("train")
    with pytest.raises(InputError, match=r"must hold background noise, got none; add _background_noise_ or"):
        data.noise()
    with pytest.raises(InputError, match=r"silence is cut from background recordings of at least 10 s, got none"):
        TASK.open(None, WORDS_12).split("test")


def test_calibration_is_balanced_and_never_from_test() -> None:
    data = TASK.open(None)
    inputs = data.calibration(40)
    assert inputs.shape == (40, 128, 128)
    assert not inputs.is_inference()
    validation, test = data.split("validation"), data.split("test")
    found = [int((validation.features - x).abs().amax((1, 2)).argmin()) for x in inputs]
    assert all((validation.features[row] - x).abs().max() < 1e-4 for row, x in zip(found, inputs, strict=True))
    assert set(validation.labels[found].bincount().tolist()) == {2, 3}
    assert all((test.features - x).abs().amax((1, 2)).min() > 0.1 for x in inputs)
    assert torch.equal(inputs, data.calibration(40))
    with pytest.raises(InputError, match=r"at most 256 calibration clips are there, got a wish for 257; ask for fewer"):
        data.calibration(257)


def test_balanced_takes_turns() -> None:
    clips = sample.Sample().clips("test", audio=False)
    classes = [WORDS_16.index(clip.word) for clip in clips]
    assert Counter(classes[row] for row in balanced(clips, classes, 32)) == dict.fromkeys(range(16), 2)


# labels


def test_label_order() -> None:
    assert " ".join(WORDS_16) == "zero one two three four five left right down up go no yes stop on off"
    assert len(set(WORDS_35)) == 35
    assert (WORDS_35[0], WORDS_35[16], WORDS_35[34]) == ("backward", "forward", "one")
    assert set(WORDS_16) < set(WORDS_35)
    assert WORDS_12[10:] == ("silence", "unknown")
    assert dict(TASK.label_sets) == {"16": WORDS_16, "12": WORDS_12, "35": WORDS_35}


def test_chosen_labels_with_unknown() -> None:
    split = TASK.open(None, ["stop", "unknown", "go"]).split("test")
    assert split.labels.bincount().tolist() == [10, 2, 10]


def test_impossible_labels() -> None:
    with pytest.raises(UsageError, match=r"labels must be words of the data, got 'rigth'; did you mean right\?"):
        TASK.open(None, ["left", "rigth"])
    with pytest.raises(UsageError, match=r"labels must be different words, got 'go' twice; remove one"):
        TASK.open(None, ["go", "go"])
    with pytest.raises(UsageError, match=r"there must be at least 2 labels, got 1; add words"):
        TASK.open(None, ["go"])


def test_unknown_split() -> None:
    with pytest.raises(UsageError, match=r"a split must be one of train, validation, test, got 'dev'; correct it"):
        TASK.open(None).split("dev")


# scoring


def test_score_counts_the_official_clips() -> None:
    truth = torch.tensor([0, 1, 2, 0, 1])
    features = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 1, 0]), 3).float()
    split = Split("test", features, truth, "five clips", torch.tensor([True, True, False, True, False]))
    listed, every = TASK.score(lambda x: x, split), TASK.score(lambda x: x, split, official_only=False)
    assert (listed.correct, listed.n, listed.split) == (2, 3, "test")
    assert listed.note == "the 3 clips of the official lists, of 5"
    assert (every.correct, every.n, every.note) == (3, 5, "all 5 clips")
    unlisted = Split("test", features, truth, "five clips")
    assert TASK.score(lambda x: x, unlisted).note == "all 5 clips"


def test_score_runs_small_batches_without_gradients() -> None:
    seen = []

    def predict(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        assert torch.is_inference_mode_enabled()
        return batch.mean(1)[:, :16]

    TASK.score(predict, TASK.open(None).split("test"))
    assert seen == [64, 64, 32]


def test_score_refuses_wrong_outputs() -> None:
    split = TASK.open(None).split("test")
    with pytest.raises(PostconditionError, match=r"one row of class scores per clip, got \(64, 12\) for 64 clips; correct"):
        TASK.score(lambda x: torch.zeros(len(x), 12), split)
    with pytest.raises(PostconditionError, match=r"got \(1, 16\) for 64 clips"):
        TASK.score(lambda x: torch.zeros(1, 16), split)
    with pytest.raises(PostconditionError, match=r"class scores must be finite, got NaN or infinity; look for an overflow"):
        TASK.score(lambda x: torch.full((len(x), 16), torch.nan), split)


# the published folder layout


def test_archive_equals_the_sample(archive: Path) -> None:
    data, embedded = TASK.open(archive), TASK.open(None)
    assert data.labels == embedded.labels
    assert (
        data.origin
        == f"Speech Commands layout, 16 words (official lists), folder {archive.name}, test n=160 of the official lists"
    )
    for name in LISTS:
        ours, theirs = data.waves(name), embedded.waves(name)
        rows = [ours.names.index(each) for each in theirs.names]
        assert torch.equal(ours.samples[rows], theirs.samples)
        assert torch.equal(ours.labels[rows], theirs.labels)
        assert ours.speakers[rows[0]] == theirs.speakers[0]
    assert len(data.waves("train")) == 256
    assert (data.waves("train").samples[:, 8000:] == 0).all()
    assert len(data.noise()) == 2 * 12 * 16000


def test_twelve_classes(archive: Path) -> None:
    data = TASK.open(archive, WORDS_12)
    for name, each in (("test", 10), ("validation", 16), ("train", 16)):
        count = data.waves(name).labels.bincount().tolist()
        assert count == [each] * 12
    silence = {name: data.waves(name).samples[data.waves(name).labels == 10] for name in (*LISTS, "train")}
    assert all((clips.float().std(1) > 100).all() for clips in silence.values())


def test_silence_of_the_splits_is_apart() -> None:
    recording = np.arange(20 * 16000, dtype=np.int32)
    spans = {}
    for split in ("train", "validation", "test"):
        pieces = [clip.encoded for clip in cut_silence([recording], split, 7)]  # type: ignore[list-item]
        assert all(isinstance(piece, np.ndarray) and len(piece) == 16000 for piece in pieces)
        spans[split] = (min(int(piece[0]) for piece in pieces), max(int(piece[-1]) for piece in pieces))  # type: ignore[index]
    assert spans["train"][1] < spans["validation"][0] < spans["validation"][1] < spans["test"][0]


def test_one_list_alone(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "a.wav").write_bytes(b"")
    (tmp_path / "testing_list.txt").write_text("")
    with pytest.raises(
        InputError, match=r"must hold both validation_list.txt and testing_list.txt or neither, got only testing"
    ):
        TASK.open(tmp_path)


def test_own_words_are_split_by_speaker(tmp_path: Path) -> None:
    for word in ("licht", "aus"):
        (tmp_path / word).mkdir()
        for number in range(40):
            for take in range(2):
                soundfile.write(tmp_path / word / f"person{number}_nohash_{take}.wav", np.ones(8000, np.int16), 16000)
    soundfile.write(tmp_path / "aus" / "plain.WAV", np.ones(8000, np.int16), 16000, format="WAV")
    data = TASK.open(tmp_path)
    assert data.labels == ("aus", "licht")
    assert data.origin.startswith("folder of 2 words (split by speaker hash), folder ")
    assert data.split("test").official is None
    speakers = {name: set(data.waves(name).speakers) for name in ("train", "validation", "test")}
    assert sum(map(len, speakers.values())) == 41
    assert "plain" in set.union(*speakers.values())
    for name, keys in speakers.items():
        assert all(split_of(key) == name for key in keys)
    assert len(data.calibration(4)) == 4
    assert TASK.verify(tmp_path) == []


def test_hash_rule() -> None:
    assert speaker("8c7f81df_nohash_0") == "8c7f81df"
    assert speaker("my clip") == "my clip"
    assert split_of("8c7f81df") == "test"
    assert split_of("41285056") == "validation"
    assert split_of("39a12648") == "train"
    shares = Counter(split_of(f"speaker {number}") for number in range(3000))
    assert shares["test"] == pytest.approx(300, abs=60)
    assert shares["validation"] == pytest.approx(300, abs=60)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a folder with speech data, got no such folder; check the path"):
        TASK.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"must hold test.parquet and its like or one folder of sounds per word, got neither"):
        TASK.open(tmp_path)


# describe and verify


def test_describe(archive: Path) -> None:
    facts = dict(TASK.describe(archive))
    assert facts["layout"].startswith("Speech Commands layout, 16 words")
    assert facts["test"] == "160 clips of 118 speakers, 160 of the official lists"
    assert "yes 16" in facts["train words"]
    assert "CC BY 4.0" in facts["licence"]
    assert list(dict(TASK.describe(None))) == [
        "layout", "labels", "validation", "validation words", "test", "test words", "licence",
    ]  # fmt: skip


def test_verify_the_sample_and_an_archive(archive: Path) -> None:
    assert TASK.verify(None) == []
    assert TASK.verify(archive) == []


def test_verify_finds_problems(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    (tmp_path / "yes").mkdir()
    soundfile.write(tmp_path / "no" / "a_nohash_0.wav", np.ones(800, np.int16), 16000)
    soundfile.write(tmp_path / "yes" / "a_nohash_0.wav", np.ones(800, np.int16), 16000)
    (tmp_path / "yes" / "b_nohash_0.wav").write_text("noise?")
    (tmp_path / "validation_list.txt").write_text("yes/a_nohash_0.wav\nyes/gone_nohash_1.wav\n")
    (tmp_path / "testing_list.txt").write_text("")
    problems = "\n".join(TASK.verify(tmp_path))
    assert "test: no clips" in problems
    assert "yes/gone_nohash_1.wav: listed, but there is no such file" in problems
    assert "speaker a: in train and in validation" in problems
    assert "validation: no clip of no" in problems
    assert "yes/b_nohash_0.wav: must be a sound file" in problems


def test_how_to_get() -> None:
    assert "speech_commands_v0.02.tar.gz" in TASK.how_to_get
    assert "CC BY 4.0" in TASK.how_to_get


# Parquet


@pytest.fixture(scope="session")
def small_parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded sample as Parquet files, two of them for validation."""
    pyarrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("columns")
    clips = {split: sample.Sample().clips(split) for split in LISTS}
    parts = {"test": clips["test"], "validation_0": clips["validation"][:100], "validation_1": clips["validation"][100:]}
    for name, rows in parts.items():
        columns = {
            "path": [clip.name for clip in rows],
            "word": [clip.word for clip in rows],
            "speaker": [clip.speaker for clip in rows],
            "in_v2_list": [number % 2 == 0 for number in range(len(rows))],
            "audio": [clip.encoded for clip in rows],
        }
        writer.write_table(pyarrow.table(columns), folder / f"{name}.parquet")
    return folder


def test_parquet_equals_the_sample(small_parquet: Path) -> None:
    data, embedded = TASK.open(small_parquet), TASK.open(None)
    assert data.labels == embedded.labels
    assert data.origin.endswith("test n=80 of the official lists (160 in all)")
    for name in LISTS:
        assert torch.equal(data.split(name).features, embedded.split(name).features)
        assert torch.equal(data.split(name).labels, embedded.split(name).labels)
    assert TASK.verify(small_parquet) == ["train: no train.parquet or train_<n>.parquet"]


def test_load_waves_keeps_decoded_clips(small_parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("go", "stop")
    first = parquet.load_waves(small_parquet, "validation", words, tmp_path)
    assert first.samples.shape == (32, 16000)
    assert first.samples.dtype == torch.int16
    assert first.labels.bincount().tolist() == [16, 16]
    assert int(first.official.sum()) == 16
    assert len(first) == 32
    assert not list(tmp_path.glob(".*"))
    monkeypatch.setattr(waves, "decode_clips", None)
    again = parquet.load_waves(small_parquet, "validation", words, tmp_path)
    assert torch.equal(first.samples, again.samples)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.official, again.official)
    assert (first.names, first.speakers, first.words) == (again.names, again.speakers, again.words)
    next(tmp_path.glob("*.json")).write_text("{")
    with pytest.raises(InputError, match=r"kept clips must be whole, got .*; remove that folder and run again"):
        parquet.load_waves(small_parquet, "validation", words, tmp_path)


def test_parquet_errors(small_parquet: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(InputError, match=r"must hold the split train, got only validation, test; hand in a folder"):
        parquet.load_waves(small_parquet, "train", WORDS_16)
    with pytest.raises(InputError, match=r"must hold noise.parquet or noise_<n>.parquet, got neither; run: edgetk data"):
        parquet.load_noise(small_parquet)
    with pytest.raises(InputError, match=r"the split test must hold clips of cat, dog, got none; choose other words"):
        parquet.load_waves(small_parquet, "test", ("cat", "dog"))
    (tmp_path / "test.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"test.parquet: must be a Parquet file, got .*; fetch it again"):
        TASK.open(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"word": ["go"]}), tmp_path / "test.parquet")
    with pytest.raises(
        InputError, match=r"must have the columns path, .*, audio, got no audio, in_v2_list, path, speaker; add them"
    ):
        parquet.load_waves(tmp_path, "test", WORDS_16)


def test_parquet_needs_its_extra(small_parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"speech-commands: needs the package pyarrow, .* pip install 'edgetk\[parquet\]'"):
        TASK.open(small_parquet)


# the official data, where it is at hand


def test_official_splits_follow_the_hash_rule(official: Path) -> None:
    layout = parquet.Parquet(official)
    for split in ("train", "validation", "test"):
        clips = layout.clips(split, audio=False)
        assert len(clips) > 1000
        assert all(split_of(speaker(Path(clip.name).stem)) == split for clip in clips)
        assert all(speaker(Path(clip.name).stem) == clip.speaker for clip in clips)


def test_official_counts(official: Path) -> None:
    data = TASK.open(official)
    assert data.labels == WORDS_16
    assert data.origin.endswith("test n=1463 of the official lists (1607 in all)")
    assert data.origin.startswith("Speech Commands subset, 16 words (v0.01 audio, official speaker split), Parquet folder")
    assert len(data.noise()) > 6 * 60 * 16000
    assert TASK.verify(official) == []


def test_sample_is_reproducible(official: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "make_sample.py"
    runpy.run_path(str(script))["write"](official, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (sample.FOLDER / path.name).read_bytes(), path.name
    assert {path.name for path in tmp_path.iterdir()} == {"index.csv", "test.zip", "validation.zip"}
