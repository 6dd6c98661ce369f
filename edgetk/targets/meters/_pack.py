"""The agent as one file: a zip that a board's Python runs, with the same bytes for the same sources."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]
_START = "import sys\nfrom edgetk.targets.meters.agent.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
#: what runs on a board, below edgetk/; packages above it come along empty
SOURCES = (
    "targets/power.py",
    "targets/power_ina3221.py",
    "targets/power_nvml.py",
    "targets/powercap.py",
    "targets/meters/agent/*.py",
)


@cache
def agent() -> bytes:
    """The zip file: `python3 agent.pyz FOLDER`."""
    files = {f"edgetk/{folder}__init__.py": "" for folder in ("", "targets/", "targets/meters/")}
    for pattern in SOURCES:
        for path in sorted(_PACKAGE.glob(pattern)):
            files[f"edgetk/{path.relative_to(_PACKAGE).as_posix()}"] = path.read_text(encoding="utf-8")
    files["__main__.py"] = _START
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files[name])
    return content.getvalue()
