"""The experiment's own parts: reviews and batches, the schedule, a run from its queue, intervals by hand."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from experiment_scripts import load

LENGTH = 70


@pytest.fixture(scope="module")
def w() -> ModuleType:
    module = load("wide_w1_w3")
    small = replace(module.VARIANTS["1x16"], heads=2, dim=16, head_width=4, ffn=16)
    module.VARIANTS = {**module.VARIANTS, "1x16": small, "4x4": replace(small, layers=2, heads=1)}
    return module


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Reviews of "a" or "b" only, of 1 to 90 bytes: a mood that one byte tells."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 96), ("validation", 24), ("test", 24)):
        labels = np.arange(count) % 2
        texts = [bytes([97 + label]) * int(random.integers(1, 91)) for label in labels]
        arrays[split] = np.frombuffer(b"".join(text + b"\0" for text in texts), np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez_compressed(tmp_path / "reviews.npz", **arrays)
    return tmp_path / "reviews.npz"


def test_reviews_are_taken_apart(w: ModuleType, tmp_path: Path) -> None:
    text = np.frombuffer(b"abc\0defgh\0", np.uint8)
    np.savez(tmp_path / "x.npz", test=text, test_labels=np.array([1, 0], np.uint8))
    read = w.load(tmp_path / "x.npz", "test", 4, "cpu")
    assert read.tokens.tolist() == [[97, 98, 99, 0], [100, 101, 102, 103]]
    assert (read.lengths.tolist(), read.labels.tolist()) == ([3, 4], [1, 0])
    np.savez(tmp_path / "old.npz", test=text)
    with pytest.raises(SystemExit, match=r"old\.npz: must hold test_labels, got none; prepare it again with memoryformer_e1"):
        w.load(tmp_path / "old.npz", "test", 4, "cpu")


def test_batches_hold_similar_lengths_and_no_review_twice(w: ModuleType) -> None:
    lengths = np.random.default_rng(0).integers(1, 1001, 103)
    every = np.concatenate(list(w.batches(lengths, 8, None)))
    assert sorted(every) == list(range(103))
    drawn = list(w.batches(lengths, 8, np.random.default_rng(1)))
    assert [len(rows) for rows in drawn] == [8] * 12
    assert len(set(np.concatenate(drawn))) == 96
    assert np.mean([np.ptp(lengths[rows]) for rows in drawn]) < 300


@torch.no_grad()
def test_cutting_to_the_longest_changes_nothing(w: ModuleType, prepared: Path) -> None:
    reviews = w.load(prepared, "test", LENGTH, "cpu")
    net = w.WideEncoder(replace(w.VARIANTS["4x4"], length=LENGTH)).eval()
    whole = net(reviews.tokens)
    for rows in w.batches(reviews.lengths, 5, None):
        assert torch.allclose(w.answer(net, reviews, rows), whole[torch.from_numpy(rows)], atol=1e-5)


def test_schedule_by_hand(w: ModuleType) -> None:
    shares = [w.share(step, 100) for step in (0, 4, 9, 39)]
    assert shares == pytest.approx([0.1, 0.5, 1.0, math.sqrt(10 / 40)])


def test_interval_by_hand(w: ModuleType) -> None:
    made = w.interval([1.0, 2.0, 3.0])
    assert made["mean"] == 2.0
    assert made["ci95"] == pytest.approx([2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)])
    assert w.interval([1.0])["ci95"] is None


def test_summary_by_hand(w: ModuleType) -> None:
    def row(experiment: str, shape: str, mixer: str, seed: int, correct: int) -> dict[str, Any]:
        right = {"correct": correct, "n": 100}
        size = {"1x16": 10, "4x4": 18}[shape]
        return {"experiment": experiment, "shape": shape, "mixer": mixer, "seed": seed, "test": right, "parameters": size}

    rows = [row("w1", "1x16", "softmax", s, c) for s, c in enumerate((62, 63))]
    rows += [row("w1", "4x4", "softmax", s, c) for s, c in enumerate((60, 64))]
    rows += [row("w3", "1x16", "linear", 0, 66), row("w3", "4x4", "linear", 0, 65)]
    found = w.summary({str(i): r for i, r in enumerate(rows)})
    assert found["wide_minus_deep_points"]["w1"]["each"] == [2.0, -1.0]
    assert found["wide_minus_deep_points"]["w3"]["each"] == {"softmax": 2.0, "linear": 1.0}
    assert found["size_ratio"] == {"4x4 / 1x16": 1.8}
    assert found["accuracy_percent"]["w1 softmax 4x4"] == [60.0, 64.0]


def test_a_run_learns_and_gives_its_row(w: ModuleType, prepared: Path, tmp_path: Path) -> None:
    args = argparse.Namespace(
        reviews=prepared, device="cpu", limit=None, epochs=6, batch=8, rate=5e-3, weights=tmp_path / "weights"
    )
    row = w.run(replace(w.queue()[0], length=LENGTH), args)
    assert row["test"] == {"correct": 24, "n": 24}
    assert row["steps"] == 72
    stored = torch.load(tmp_path / "weights" / "w1-1x16-s0.pt", weights_only=True)
    assert stored["head.weight"].dtype == torch.float16
    json.dumps(row)


def test_the_queue_has_the_most_wanted_first(w: ModuleType) -> None:
    names = [job.name for job in w.queue()]
    assert names[:4] == ["w1-1x16-s0", "w1-4x4-s0", "w1-2x8-s0", "w1-1x16-s1"]
    assert len(set(names)) == 9 + 2 + 10
    assert "w3-linear-4x4-s0" in names


def test_the_queue_keeps_rows_and_time(w: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With processes that write at once: rows come in, failed and unfitting jobs do not, finished ones are not repeated."""
    started = []

    class Process:
        returncode = 0

        def __init__(self, job: Any) -> None:
            self.returncode = 1 if job.shape == "2x8" else 0

        def poll(self) -> int:
            return self.returncode

    def start(job: Any, slot: int, args: argparse.Namespace) -> tuple[Process, Any, Path]:
        started.append(job.name)
        part = tmp_path / f"{job.name}.row.json"
        row = {"experiment": job.experiment, "shape": job.shape, "mixer": job.mixer, "seed": job.seed, "parameters": 1}
        part.write_text(json.dumps({**row, "test": {"correct": 1, "n": 2}}))
        return Process(job), job, part

    monkeypatch.setattr(w, "start", start)
    args = argparse.Namespace(
        output=tmp_path / "r.json", seconds=60.0, gpus=1, each=2, slow=1.0, epochs=10, pause=0, device="cpu"
    )
    w.work(w.queue()[:3], args)  # 4x4 needs 92 s
    assert sorted(json.loads(args.output.read_text())["rows"]) == ["w1-1x16-s0"]
    args.seconds = 500.0
    w.work(w.queue()[:3], args)
    assert started == ["w1-1x16-s0", "w1-4x4-s0", "w1-2x8-s0"]
    assert sorted(json.loads(args.output.read_text())["rows"]) == ["w1-1x16-s0", "w1-4x4-s0"]


def test_what_is_prepared_is_what_is_read(w: ModuleType, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("neg", "pos"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                (tmp_path / part / name / f"{i}.txt").write_text(f"{part} {name} {i}")
    other = load("memoryformer_e1")
    other.prepare(tmp_path, tmp_path / "reviews.npz")
    read = w.load(tmp_path / "reviews.npz", "test", 8, "cpu")
    assert [bytes(row.tolist()) for row in read.tokens[:6]] == [b"test neg"] * 5 + [b"test pos"]
    assert read.labels.tolist() == [0] * 5 + [1] * 5
    assert w.load(tmp_path / "reviews.npz", "validation", 8, "cpu").labels.tolist() == [0]
    assert set(other.load(tmp_path / "reviews.npz", "cpu")) == {"train", "validation", "test"}
