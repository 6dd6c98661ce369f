"""The HTML report: one file, nothing fetched, everything escaped, measured and predicted apart."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgetk.toolkit import charts, html

DATA = Path(__file__).resolve().parent.parent / "data" / "report.json"
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture
def data():
    return json.loads(DATA.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """Checks nesting, and collects texts and the tables under each heading."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.sections, self.tags = [], [], {}, []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" in self.open:
            return
        self.texts.append(text.strip())
        if "h2" in self.open and text.strip() and "small" not in self.open and "span" not in self.open:
            self.section = text.strip()
            self.sections[self.section] = []
        elif hasattr(self, "section"):
            self.sections[self.section].append(text.strip())


def test_the_page_is_well_formed_and_says_what_matters(data):
    page = Page(html.render(data))
    text = " ".join(page.texts)
    assert "lmuformer → jetson-orin-nano-8g" in text
    assert "97.06 → 96.65 %" in text
    assert "9.86× smaller" in text
    assert "all goals met" in text
    assert data["artifacts"][0]["sha256"] in text


def test_nothing_is_fetched(data):
    text = html.render(data)
    page = Page(text)
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script", text)
    assert all(tag not in ("script", "link", "img", "iframe") for tag, _ in page.tags)


def test_measured_and_predicted_have_sections_of_their_own(data):
    sections = Page(html.render(data)).sections
    assert "810 µs" in sections["Measured"]
    assert "230 µs" not in sections["Measured"]
    assert "230 µs" in sections["Predicted"]
    assert "810 µs" not in sections["Predicted"]
    assert "no energy counter on this machine" in sections["Not available"]


def test_sections_without_content_are_left_out(data):
    data["figures"] = []
    data["workloads"] = data["op_energy"] = {}
    sections = Page(html.render(data)).sections
    assert not {"Measured", "Predicted", "Not available", "Operators", "Energy from operation counts"} & set(sections)


def test_every_text_is_escaped(data):
    evil = "<script>alert(1)</script>"
    data |= {"model": evil, "warnings": [evil], "goals_missed": [evil], "task": evil, "notes": [evil]}
    data["passes"][0] |= {"name": evil, "reason": evil, "notes": {evil: evil}, "settings": {evil: evil}}
    data["artifacts"][0] |= {"path": evil, "notes": [evil]}
    data["workloads"] = {evil: {"operators": {evil: 3}}}
    data["environment"] = {evil: evil}
    text = html.render(data)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    Page(text)


def test_energy_by_operation_counts_is_told_from_board_energy(data):
    row = {
        "joules": 1e-3,
        "arithmetic_joules": 4e-4,
        "memory_joules": 6e-4,
        "dense_int8_joules": 8e-4,
        "dense_fp32_joules": 3e-3,
    }
    data["op_energy"] = {"model.onnx": {**row, "table": "Horowitz 2014, 45 nm", "assumptions": ["32 kB SRAM"]}}
    texts = Page(html.render(data)).sections["Energy from operation counts"]
    assert {"1 mJ", "800 µJ", "3 mJ", "computed, not seen"} <= set(texts)


def test_operators_are_drawn_and_the_rest_is_summed():
    counts = {f"Op{i:02}": 20 - i for i in range(15)}
    svg = charts.operators(counts)
    assert svg.count('class="bar"') == 13
    assert "3 other types" in svg
    assert ">21<" in svg  # 8 + 7 + 6


def test_a_run_without_data_has_a_page_too(data):
    data["accuracy"] = {"before": None, "after": None, "guard_before": None}
    for row in data["passes"]:
        row["accuracy"] = row["drop"] = None
    text = " ".join(Page(html.render(data)).texts)
    assert "no data was given, so nothing was scored" in text


def test_a_missed_goal_is_on_top(data):
    data["goals_missed"] = ["max_size_bytes must be 500000, got 662104"]
    texts = Page(html.render(data)).texts
    assert "goal missed" in texts
    assert "all goals met" not in texts


def test_taken_back_passes_are_hollow_points(data):
    svg = html.view(data)["scatter"]
    assert svg.count('class="dot back"') == 1
    assert svg.count('class="dot"') == 4
    assert "factorize: " in svg
    assert "clip file on disk" in svg
    assert "accuracy on validation" in svg


def test_equal_sizes_and_scores_do_not_break_the_chart():
    point = charts.Point("a", 1000.0, 0.9, 0.9, 0.9, True, "1 kB", "90 %")
    assert "nan" not in charts.scatter([point, point], "x", "y", "two of the same")


def test_settings_that_are_not_set_are_not_shown(data):
    data["passes"][0] |= {"settings": {"keep": {}, "layers": [], "why": "", "ranks": None, "refit": False, "max_drop": 0}}
    text = " ".join(Page(html.render(data)).texts)
    assert "refit = False, max_drop = 0" in text
    assert not any(f"{name} = " in text.split("refit = ")[0][-60:] for name in ("keep", "layers", "why", "ranks"))
