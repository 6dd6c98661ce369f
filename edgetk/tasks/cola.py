"""CoLA: whether a sentence is acceptable English.

Sources: Warstadt et al. 2018, arXiv:1805.12471, for the data; Wang et al. 2018 (GLUE), arXiv:1804.07461, for Matthews'
correlation as its metric.
"""

from __future__ import annotations

from edgetk.tasks.text.tables import Layout
from edgetk.tasks.text.task import TextTask, glue

TASK = TextTask(
    name="cola",
    layout=Layout(
        {
            "train": [("train.tsv",), ("in_domain_train.tsv",)],
            "dev": [
                ("dev.tsv",),
                ("dev_in_domain.tsv", "dev_out_of_domain.tsv"),
                ("in_domain_dev.tsv", "out_of_domain_dev.tsv"),
            ],
        },
        texts=(3,),
        label=1,
        columns=4,
        labels=("0", "1"),
        header=False,
    ),
    length=64,
    classes=("unacceptable", "acceptable"),
    how_to_get=glue("CoLA", "https://dl.fbaipublicfiles.com/glue/data/CoLA.zip (research use)"),
    metrics=("Matthews",),
)
