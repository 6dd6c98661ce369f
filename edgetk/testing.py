"""For authors of plug-ins: a tiny model with data to try things on, and checks that hold a plug-in to its contract.

    from edgetk import testing
    testing.check_pass(MyPass(amount=0.5), testing.tiny_bundle())

Every check raises AssertionError with one sentence that says what was promised and what was found.
"""

from __future__ import annotations

from edgetk.toolkit.contract import check_board, check_exporter, check_model, check_pass, check_task
from edgetk.toolkit.tiny import TinyData, TinyNet, TinyTask, tiny_bundle

#: the plug-in attribute of the tiny task: `edgetk.testing:TASK`
TASK = TinyTask()

__all__ = [
    "TASK",
    "TinyData",
    "TinyNet",
    "TinyTask",
    "check_board",
    "check_exporter",
    "check_model",
    "check_pass",
    "check_task",
    "tiny_bundle",
]
