"""RTE: whether the first text entails the second sentence.

Sources: Dagan et al. 2006 and the challenges after it, for the data; Wang et al. 2018 (GLUE), arXiv:1804.07461, for the task.
"""

from __future__ import annotations

from edgetk.tasks.text.tables import Layout
from edgetk.tasks.text.task import TextTask, glue

TASK = TextTask(
    name="rte",
    layout=Layout(
        {"train": [("train.tsv",)], "dev": [("dev.tsv",)]},
        texts=(1, 2),
        label=3,
        columns=4,
        labels=("not_entailment", "entailment"),
    ),
    length=128,
    classes=("not_entailment", "entailment"),
    how_to_get=glue("RTE", "https://dl.fbaipublicfiles.com/glue/data/RTE.zip (research use)"),
)
