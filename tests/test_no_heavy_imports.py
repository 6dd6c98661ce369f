"""What answers at once imports nothing slow: the rule behind a fast `edgetk --help`."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "brevitas", "pyarrow", "soundfile", "scipy", "netron", "numpy", "jinja2")

PROGRAM = """
import sys
sys.argv = ["edgetk", *{arguments!r}]
from edgetk.toolkit.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("HEAVY", [name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["compress", "--help"],
        ["evaluate", "--help"],
        ["bench", "--help"],
        ["doctor"],
        ["list", "--names"],
    ],
    ids=" ".join,
)
def test_answers_without_heavy_imports(arguments):
    program = PROGRAM.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_core_imports_nothing_heavy():
    program = "import sys, pkgutil, importlib, edgetk.core\n"
    program += "for m in pkgutil.iter_modules(edgetk.core.__path__): importlib.import_module('edgetk.core.' + m.name)\n"
    program += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
