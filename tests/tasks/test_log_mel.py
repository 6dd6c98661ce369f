"""The front end against recorded features of the published code, and the streaming one against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.log_mel import LogMel, StreamingLogMel, mel_filters

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "fbank_sc.npz", allow_pickle=False)
WAVE = torch.from_numpy(GOLDEN["waveform"])
LOG_MEL = LogMel()


def test_golden_log_mel() -> None:
    frames = LOG_MEL.log_mel(WAVE)[0]
    assert frames.shape == (98, 128)
    assert (frames - torch.from_numpy(GOLDEN["fbank"])).abs().max() <= 1e-3


def test_golden_features() -> None:
    features = LOG_MEL(WAVE)[0]
    assert features.shape == (128, 128)
    assert features.dtype == torch.float32
    assert (features - torch.from_numpy(GOLDEN["input_normalised"])).abs().max() <= 1e-3


def test_padding_is_louder_than_silence() -> None:
    features = LOG_MEL(torch.zeros(1, 16000))[0]
    assert features[98:].numpy() == pytest.approx(0.6150423, abs=1e-6)
    assert features[:98].numpy() == pytest.approx((np.log(fe.LOG_FLOOR) + 6.845978) / (2 * 5.5654526), abs=1e-6)
    assert pytest.approx(0.6150423, abs=1e-7) == fe.FRONT_END["pad_normalised"]


def test_batch_equals_single_clips() -> None:
    batch = torch.cat((WAVE, WAVE.flip(1), 0.1 * WAVE))
    assert torch.allclose(LOG_MEL(batch), torch.cat([LOG_MEL(clip[None]) for clip in batch]), atol=1e-5)


def test_constant_offset_changes_nothing() -> None:
    """Why the clip's mean need not be subtracted, as the published code does."""
    loud = LOG_MEL(WAVE - WAVE.mean())
    assert (LOG_MEL(WAVE) - loud).abs().max() <= 1e-4
    assert (LOG_MEL(0.25 * WAVE) - LOG_MEL(0.25 * WAVE + 0.1)).abs().max() <= 1e-3


def test_filters() -> None:
    filters = mel_filters()
    assert filters.shape == (257, 128)
    assert (filters[-1] == 0).all()
    assert (filters[:1] == 0).all()
    assert (filters.sum(0) == 0).nonzero().flatten().tolist() == [3]
    peak_hz = filters[:, 127].argmax() * 16000 / 512
    assert 7700 < peak_hz < 8000


def test_autocast_leaves_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LOG_MEL(WAVE), LOG_MEL(WAVE))
        inside = LOG_MEL(WAVE)
    assert torch.equal(inside, LOG_MEL(WAVE))


def test_nothing_to_save() -> None:
    assert LOG_MEL.state_dict() == {}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=20))
def test_stream_equals_batch(sizes: list[int]) -> None:
    stream = StreamingLogMel(LOG_MEL)
    cuts = torch.tensor(sizes).cumsum(0).clamp_max(16000).tolist()
    pieces = WAVE[0].tensor_split(cuts)
    frames = torch.cat([stream.push(piece) for piece in pieces])
    assert frames.shape == (98, 128)
    assert (frames - LOG_MEL(WAVE)[0, :98]).abs().max() <= 1e-4


def test_stream_starts_anew() -> None:
    stream = StreamingLogMel(LOG_MEL)
    first = stream.push(WAVE[0, :1000])
    stream.reset()
    assert stream.push(torch.empty(0)).shape == (0, 128)
    assert torch.equal(stream.push(WAVE[0, :1000]), first)
    assert len(stream.push(WAVE[0, 1000:1040])) == 1


def test_front_end_constants() -> None:
    assert fe.FRONT_END["frames"] == 128
    assert fe.FRONT_END["clip_frames"] == 98
    assert fe.FRONT_END["period_s"] == 0.01
    with pytest.raises(TypeError):
        fe.FRONT_END["frames"] = 1  # type: ignore[index]
