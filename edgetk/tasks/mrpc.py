"""MRPC: whether two sentences of the news say the same.

Sources: Dolan & Brockett 2005, IWP, for the data; Wang et al. 2018 (GLUE), arXiv:1804.07461, for the task, accuracy and F1.
"""

from __future__ import annotations

from edgetk.tasks.text.tables import Layout
from edgetk.tasks.text.task import TextTask

TASK = TextTask(
    name="mrpc",
    layout=Layout(
        {
            "train": [("train.tsv",), ("msr_paraphrase_train.txt",)],
            "dev": [("dev.tsv",), ("msr_paraphrase_test.txt",)],
        },
        texts=(3, 4),
        label=0,
        columns=5,
        labels=("0", "1"),
    ),
    length=128,
    classes=("different", "equivalent"),
    how_to_get=(
        "Download the Microsoft Research Paraphrase Corpus (MSR data licence) from\n"
        "  https://www.microsoft.com/en-us/download/details.aspx?id=52398\n"
        "and hand in the folder with msr_paraphrase_train.txt and msr_paraphrase_test.txt with --data FOLDER.\n"
        "GLUE's train.tsv and dev.tsv work too."
    ),
    metrics=("F1",),
)
