"""SST-2: whether a sentence of a film review is favourable.

Sources: Socher et al. 2013, EMNLP, for the data; Wang et al. 2018 (GLUE), arXiv:1804.07461, for the task and its accuracy.
"""

from __future__ import annotations

from edgetk.tasks.text.tables import Layout
from edgetk.tasks.text.task import TextTask, glue

TASK = TextTask(
    name="sst2",
    layout=Layout({"train": [("train.tsv",)], "dev": [("dev.tsv",)]}, texts=(0,), label=1, columns=2, labels=("0", "1")),
    length=64,
    classes=("negative", "positive"),
    how_to_get=glue("SST-2", "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip (7 MB, no licence stated)"),
)
