"""Imports go down only: toolkit -> middle rooms -> core; middle rooms never import each other, with two exceptions."""

import ast
from pathlib import Path

import edgetk

PACKAGE = Path(edgetk.__file__).parent
MIDDLE = ("models", "tasks", "passes", "quant", "export", "targets")
#: rooms that any middle room may use: shared blocks, and tasks for their data
SHARED = ("edgetk.models.layers", "edgetk.tasks")


def imported(path: Path) -> list[str]:
    """Every edgetk module that a file imports, also inside functions and under TYPE_CHECKING."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == "edgetk"]


def violations(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        room = parts[0].removesuffix(".py")
        for name in imported(path):
            other = name.split(".")[1] if "." in name else ""
            down = other == "core" or room in ("toolkit", "testing", "__main__") or (other == room and other in MIDDLE)
            shared = room in MIDDLE and name.startswith(SHARED)
            version = name in ("edgetk", "edgetk.__version__")
            if not (down or shared or version):
                found.append(f"{path.relative_to(package)} imports {name}")
    return found


def test_imports_go_down_only():
    assert violations(PACKAGE) == []


def test_every_room_is_looked_at():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms == {"core", "toolkit", *MIDDLE}


def test_the_rule_catches_what_it_must(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "export").mkdir()
    (tmp_path / "core" / "a.py").write_text("def f():\n    from edgetk.models import b\n")
    (tmp_path / "export" / "b.py").write_text(
        "from edgetk.targets import board\nfrom edgetk.toolkit.runner import run\n"
        "from edgetk.models.layers import lmu\nfrom edgetk.core.errors import closest\nimport edgetk\n"
    )
    assert violations(tmp_path) == [
        "core/a.py imports edgetk.models.b",
        "export/b.py imports edgetk.targets.board",
        "export/b.py imports edgetk.toolkit.runner.run",
    ]
