import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bayesdf.analysis import Estimate
from bayesdf.errors import BayesdfError
from bayesdf.report import GLOSSARY, Picture, Section, Table, confusion_matrix, write_page
from bayesdf.report.page import cells

ATTACK = """<script>alert("1")</script><img src=x onerror='y'>"""


class Reader(HTMLParser):
    """Collects tags, what they point to, and text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "data"):
                self.targets.append(value)
            if name == "id":
                self.ids.add(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page(tmp_path, counts, summary):
    path = write_page(
        tmp_path / "report.html",
        f"Title {ATTACK}",
        [
            Section(
                f"First {ATTACK}",
                [f"Paragraph {ATTACK}", Picture(confusion_matrix(counts), f"Caption {ATTACK}")],
            ),
            Section("Second", [Table(summary.rename(index={"odd": ATTACK}), f"Table {ATTACK}")]),
            Section("Third", ["Another paragraph."]),
        ],
        question="What was asked?",
        answer="What came out.",
        cautions=[f"Beware {ATTACK}"],
        highlights={"balanced accuracy": Estimate(0.912, 0.88, 0.94), "generators": 5, ATTACK: "x"},
        settings={"seed": 0, "folder": f"/data/{ATTACK}", "methods": ["svi", "mc_dropout"]},
        credits=[f"Photographs by {ATTACK}"],
    )
    return path.read_text(encoding="utf-8")


def test_page_is_well_formed_and_complete(page):
    reader = Reader(page)
    assert reader.open == []
    assert page.startswith("<!DOCTYPE html>") and "{{" not in page and "{%" not in page
    words = " ".join(reader.words)
    for expected in (
        "What was asked?",
        "What came out.",
        "Beware",
        "0.91",
        "0.88 to 0.94",
        "Another paragraph.",
        "svi, mc_dropout",
    ):
        assert expected in words
    for term in GLOSSARY:
        assert term in words


def test_page_needs_nothing_but_itself(page):
    reader = Reader(page)
    for target in reader.targets:
        assert target.startswith(("data:image/png;base64,", "#"))
        if target.startswith("#"):
            assert target[1:] in reader.ids
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]+", "", page))
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(reader.tags)
    assert "default-src 'none'" in page


def test_text_stays_text(page):
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;") >= 7
    assert Reader(page).tags.count("img") == 1


def test_pictures_are_whole_and_of_their_size(page, counts):
    encoded = re.search(r'base64,([^"]+)" width="(\d+)"', page)
    data = base64.b64decode(encoded[1])
    assert data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")
    assert int(encoded[2]) == pytest.approx(96 * confusion_matrix(counts).get_figwidth(), abs=1)


def test_tables_print_numbers_for_readers():
    frame = pd.DataFrame(
        {
            "accuracy": [0.5, 0.25],
            "accuracy.low": [0.4, np.nan],
            "accuracy.high": [0.6, np.nan],
            "images": [12345, 3],
            "small": [1.2e-7, 0.0],
            "name": ["a", "b"],
            "ok": [True, False],
            "gone": [np.nan, 2000.0],
        },
        index=pd.Index(["x", "y"], name="features"),
    )
    header, rows = cells(Table(frame, ""))
    assert [cell.text for cell in header] == ["features", "accuracy", "images", "small", "name", "ok", "gone"]
    assert [cell.text for cell in rows[0]] == [
        "x",
        "0.500 (0.400 to 0.600)",
        "12,345",
        "1.2e-07",
        "a",
        "yes",
        "n/a",
    ]
    assert [cell.text for cell in rows[1]] == ["y", "0.250", "3", "0.000", "b", "no", "2,000"]
    assert [cell.number for cell in rows[0]] == [False, True, True, True, False, False, True]
    assert cells(Table(frame, "", index=False))[0][0].text == "accuracy"


def test_a_failed_page_leaves_the_old_one(tmp_path):
    path = write_page(tmp_path / "report.html", "Old", [])
    old = path.read_bytes()
    with pytest.raises(BayesdfError, match="bytes of a PNG"):
        write_page(path, "New", [Section("s", [Picture(b"GIF89a", "")])])
    assert path.read_bytes() == old and [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_same_page_twice(tmp_path, counts):
    section = Section("s", [Picture(confusion_matrix(counts), "c")])
    first, second = (write_page(tmp_path / name, "t", [section]).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
