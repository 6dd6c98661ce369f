"""Does the tasks of a job, each in a process of its own: python3 agent.pyz FOLDER.

FOLDER/job.json says what; each result is FOLDER/<task>.json, whole or not there, so that an interrupted job goes on. Progress
is told on stderr, one line each. Ends when its standard input does: a lost connection leaves nothing running.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

BUSY, GONE = 75, 74


def main(arguments: list[str]) -> int:
    """Exit status: 0 all tasks have a result, 75 another job runs on this board, 74 the other side went away."""
    folder = Path(arguments[0])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if len(arguments) > 1:
        _one(folder, job, next(task for task in job["tasks"] if task["id"] == arguments[1]))
        return 0
    lock = os.open(str(folder.parent), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return BUSY
    children: list[subprocess.Popen[bytes]] = []
    starting, gone = threading.Lock(), threading.Event()
    threading.Thread(target=_end_with_stdin, args=(children, starting, gone), daemon=True).start()
    say(f"clock {time.time()!r}")
    for number, task in enumerate(job["tasks"], 1):
        head = f"{number} of {len(job['tasks'])}: {task['name']}"
        if (folder / f"{task['id']}.json").is_file():
            say(f"task {head}, done before")
            continue
        say(f"task {head}")
        command = [sys.executable, sys.argv[0], str(folder), task["id"]]
        # caches, counts of use and temporary files of a runtime go where all else of the job goes
        (folder / "tmp").mkdir(exist_ok=True)
        home = {**os.environ, "XDG_CACHE_HOME": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")}
        with starting:  # no child starts that the end of stdin would miss
            if gone.is_set():
                return GONE
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=home)
            children.append(child)
        with child:
            _, errors = child.communicate()
        if gone.is_set():  # it was killed because of that: no result of its own
            return GONE
        if not (folder / f"{task['id']}.json").is_file():
            lines = errors.decode("utf-8", "replace").strip().splitlines()
            how = f"signal {signal.Signals(-child.returncode).name}" if child.returncode < 0 else f"status {child.returncode}"
            write(folder, task, {"error": f"the process ended with {how}: {lines[-1] if lines else 'it said nothing'}"})
    say("end")
    return 0


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write(folder: Path, task: dict[str, Any], result: dict[str, Any]) -> None:
    """A task's result as a file that is whole or not there."""
    part = folder / f"{task['id']}.json.part"
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(folder / f"{task['id']}.json")


def _end_with_stdin(children: list[subprocess.Popen[bytes]], starting: threading.Lock, gone: threading.Event) -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock must be free when the interpreter ends
        pass
    with starting:
        gone.set()
        for child in children:
            child.kill()
    os._exit(GONE)


def _one(folder: Path, job: dict[str, Any], task: dict[str, Any]) -> None:
    from edgetk.targets.meters.agent.measure import measure

    content = (folder / task["file"]).read_bytes()
    data = (folder / task["data"]).read_bytes()
    for name, value in ((task["file"], content), (task["data"], data)):
        got = hashlib.sha256(value).hexdigest()
        if got != task["sha256"][name]:
            write(folder, task, {"error": f"{name} arrived damaged: sha256 {got} instead of {task['sha256'][name]}"})
            return
    try:
        result, outputs = measure(content, data, job, task)
    except Exception as error:  # a runtime's errors share no base class: its text is what the host needs
        write(folder, task, {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"})
        return
    if outputs is not None:
        (folder / f"{task['id']}.out").write_bytes(outputs)
        result["outputs_sha256"] = hashlib.sha256(outputs).hexdigest()
    write(folder, task, result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
