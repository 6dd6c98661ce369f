"""Composed streams: what is said where and how loud, from the right part of the data, the same for one seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetk.core.errors import InputError, UsageError
from edgetk.tasks.speech.streams import Scene, compose
from edgetk.tasks.speech.waves import Waves

WORDS = ("yes", "no", "silence")
RATE = 16000


def clips() -> Waves:
    """Two clips of "yes", three of "no" of which one is in no list: noise of different loudness."""
    random = np.random.default_rng(0)
    loud = random.normal(0, 1, (5, RATE)) * np.array([[300], [3000], [1000], [500], [800]])
    names = tuple(f"{word}/{i}_nohash_0.wav" for i, word in enumerate(("yes", "yes", "no", "no", "no")))
    official = torch.tensor([True, True, True, True, False])
    samples = torch.from_numpy(loud.round().astype(np.int16))
    return Waves(samples, torch.tensor([0, 0, 1, 1, 1]), official, names, tuple(map(str, range(5))), WORDS)


def recording() -> np.ndarray:
    """Two minutes whose first nine tenths are silent: only the test split has sound."""
    sound = np.random.default_rng(1).normal(0, 900, 120 * RATE)
    sound[: 108 * RATE] = 0
    return sound.astype(np.int16)


def test_words_stand_where_the_truth_says_at_their_signal_to_noise_ratio() -> None:
    scene = Scene(0.5, {"yes": 3, "no": 4}, piece_s=(12.0, 12.0))
    made = compose(scene, clips(), [recording()], "test", 3)
    bare = compose(Scene(0.5, {}, piece_s=(12.0, 12.0)), clips(), [recording()], "test", 3)
    assert len(made.samples) == 30 * RATE
    assert sorted(o.word for o in made.occurrences) == ["no"] * 4 + ["yes"] * 3
    words = made.samples.astype(np.float64) - bare.samples
    for said in made.occurrences:
        start = round(said.start_s * RATE)
        seconds = bare.samples[start // RATE * RATE : (start // RATE + 2) * RATE].astype(np.float64)
        snr = 20 * np.log10(np.sqrt(np.mean(words[start : start + RATE] ** 2)) / np.sqrt(np.mean(seconds**2)))
        assert snr == pytest.approx(said.snr_db, abs=0.2)
        assert 5.0 <= said.snr_db <= 30.0
        words[start : start + RATE] = 0
    assert np.abs(words).max() <= 1  # nothing beside the words but rounding


def test_clips_do_not_overlap_and_keep_their_pause() -> None:
    made = compose(Scene(1.0, {"yes": 20, "no": 15}), clips(), [], "test", 0)
    starts = [o.start_s for o in made.occurrences]
    assert min(np.diff(starts)) >= 1.5
    assert starts[0] >= 0.5
    assert starts[-1] <= 60 - 1.5


def test_every_clip_of_a_word_is_said_before_any_is_said_again_and_unlisted_ones_never() -> None:
    said = [o.clip for o in compose(Scene(1.0, {"yes": 4, "no": 4}), clips(), [], "test", 5).occurrences]
    assert {name: said.count(name) for name in set(said)} == dict.fromkeys(clips().names[:4], 2)


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    scene = Scene(0.2, {"yes": 2})
    a, b, c = (compose(scene, clips(), [recording()], "test", seed) for seed in (1, 1, 2))
    assert np.array_equal(a.samples, b.samples)
    assert a.occurrences == b.occurrences
    assert not np.array_equal(a.samples, c.samples)


def test_background_has_the_wanted_level_and_comes_from_the_part_of_its_split() -> None:
    scene = Scene(0.5, {}, background_db=(-40.0, -40.0))
    test = compose(scene, clips(), [recording()], "test", 0)
    level = 20 * np.log10(np.sqrt(np.mean((test.samples / 32768.0) ** 2)))
    assert level == pytest.approx(-40.0, abs=0.5)
    assert test.background == "1 recordings, 12 s that only the split test uses"
    assert not compose(scene, clips(), [recording()], "validation", 0).samples.any()


def test_without_recordings_the_background_is_noise_and_says_so() -> None:
    made = compose(Scene(0.1, {}), clips(), [], "test", 0)
    assert made.background == "white noise: the data hold no recordings of background"
    assert made.samples.std() > 30


def test_around_a_keyword_others_share_and_silence_is_not_said() -> None:
    scene = Scene.around("yes", ("yes", "no", "go", "up", "silence"), minutes=2.0, said=5, others=8)
    assert scene.counts == {"yes": 5, "no": 3, "go": 3, "up": 2}


def test_what_cannot_be_composed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^stream: a keyword must be a label of the model, got 'yess'; did you mean yes\?$"):
        Scene.around("yess", WORDS)
    with pytest.raises(
        UsageError,
        match=r"^stream: 9 clips of a second with pauses of 0.5 s must fit, got 0.2 minutes; make it longer, or say less$",
    ):
        compose(Scene(0.2, {"yes": 9}), clips(), [], "test", 0)
    with pytest.raises(
        InputError, match=r"^stream: the split test must hold clips of go, got none; choose other words or other data$"
    ):
        compose(Scene(0.2, {"go": 1}), clips(), [], "test", 0)
