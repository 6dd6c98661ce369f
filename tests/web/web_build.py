"""Node, npm packages and Chromium for the tests of the browser demo; what is not there is a reason to skip."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgetk.tasks.speech import audio
from edgetk.tasks.speech.sample import Sample

DEMO = Path(__file__).resolve().parents[2] / "examples" / "web_kws"


def require_node() -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node for the browser demo's JavaScript")


def require_packages() -> None:
    require_node()
    if not (DEMO / "node_modules" / "playwright-core").is_dir():
        pytest.skip("needs the browser demo's npm packages; run: make test-web")


def chromium() -> str:
    """The browser, or a reason to skip."""
    require_packages()
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"needs a browser for the demo ({', '.join(names)})")
    return found


def node(*command: object, ok: bool = True, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Node in the folder of the demo; where `ok`, it must succeed."""
    require_node()
    given = {"cwd": DEMO, "env": os.environ | env, "input": stdin, "capture_output": True, "text": True, "timeout": 120}
    done: subprocess.CompletedProcess[str] = subprocess.run(["node", *map(str, command)], **given, check=False)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def numbers(*calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """What the functions of test/numbers.mjs give."""
    found: list[Any] = json.loads(node("test/numbers.mjs", stdin=json.dumps(calls)).stdout)
    return found


def spoken(word: str) -> list[float]:
    """The clip of `word` that the demo plays, in [-1, 1]."""
    clip = next(clip for clip in Sample().clips("test") if clip.word == word)
    assert isinstance(clip.encoded, bytes)
    values: list[float] = (audio.decode(clip.encoded, clip.name) / 32768.0).tolist()
    return values
