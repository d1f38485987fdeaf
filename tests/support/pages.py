"""Small test runs whose pages are tested: made-up predictions on noise, with every outcome, and names to escape.

`read_page` reads such a page back.
"""

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.results.page.build import write_page
from utils.results.page.frames import BUDGET, Album, CaseFrames
from utils.results.summary import summarise
from utils.scoring.protocols import Row, score_image, score_volume

CLASSES = ("liver", "left kidney", "<b>pancreas</b>")
EVIL = "<script>window.hacked=1</script>&\"'"
META = {
    "protocol": "standard",
    "dataset": "phantom",
    "split": "lists/test_vol.txt",
    "selection": "validation",
    "checkpoints": [{"file": "runs/best_model.pth", "sha256": "ab" * 32, "epoch": 7, "selection": "validation"}],
    "img_size": [96, 128],
    "network": "heteromedseg",
    "ssd": "noncausal",
    "fit": "pad",
    "precision": "bf16",
    "tta": True,
    "tolerance": 2.0,
}


class TestRun(NamedTuple):
    """What `write_page` takes, and the label maps behind it: name -> (prediction, truth)."""

    __test__ = False
    summary: dict
    rows: list[Row]
    cases: list[CaseFrames]
    maps: dict[str, tuple[np.ndarray, np.ndarray]]


def volume_run(num_cases: int = 3, depth: int = 20, meta: dict = META) -> TestRun:
    """Volumes of 48 x 64: the later, the better; the first misses class 2 and is worst at slice 12 of 6 to 14."""
    rng = np.random.default_rng(0)
    album, rows, maps = Album(), [], {}
    for number in range(num_cases):
        truth = np.zeros((depth, 48, 64), np.uint8)
        truth[6:14, 8:28, 8:28] = 1
        truth[6:14, 8:28, 40:56] = 2
        prediction = np.roll(truth, num_cases - number, axis=1)
        if number == 0:
            prediction[prediction == 2] = 0
            prediction[12, 30:44, 8:36] = 3
        prediction[9, 20:24, 40:44] = 1
        name = EVIL if number == 0 else f"case{number:04d}"
        album.add_volume(name, rng.random(truth.shape, np.float32), prediction, truth)
        rows += score_volume(name, prediction, truth, CLASSES, meta["protocol"])
        maps[name] = prediction, truth
    return TestRun(summarise(rows, meta), rows, album.cases, maps)


def gallery_run(num_cases: int = 30, meta: dict = META) -> TestRun:
    """RGB images of 60 x 80, the later the better; the first is a miss, the last has nothing in it."""
    rng = np.random.default_rng(1)
    album, rows, maps = Album(), [], {}
    for number in range(num_cases):
        truth = np.zeros((60, 80), bool)
        truth[20:40, 30:50] = number < num_cases - 1
        prediction = np.roll(truth, (num_cases - number) // 2, axis=0) & (number > 0)
        name = EVIL if number == 0 else f"image {number}.jpg"
        picture = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        album.add_image(name, picture, prediction, truth)
        rows.append(score_image(name, prediction, truth, "polyp", meta["protocol"]))
        maps[name] = prediction, truth
    return TestRun(summarise(rows, meta), rows, album.cases, maps)


class Page(HTMLParser):
    """What is in a page: (tag, attributes) of all elements, words, tables and scripts by id.

    A table is a list of rows, a row a list of cells, a cell the value to sort by and its words.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.elements, self.words = text, [], []
        self.scripts, self.tables = {}, {}
        self.script = self.table = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag == "script":
            self.script = attrs.get("id", "code")
        elif tag == "table":
            self.table = self.tables.setdefault(attrs.get("id"), [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append((attrs.get("data-value"), []))

    def handle_endtag(self, tag):
        if tag == "script":
            self.script = None
        elif tag == "table":
            self.table = None

    def handle_data(self, data):
        word = data.strip()
        if self.script:
            self.scripts[self.script] = data
        elif word:
            self.words.append(word)
            if self.table and self.table[-1]:
                self.table[-1][-1][1].append(word)

    def json(self, name: str):
        return json.loads(self.scripts[name])

    def cases(self) -> list[dict]:
        """The data of all cases, in the page's order."""
        return [self.json(name) for name in self.scripts if name.startswith("case-")]


def read_page(folder: Path, run: TestRun, summary=None, histories=None, budget: int = BUDGET) -> Page:
    """Write the page of a run into `folder` and read it."""
    write_page(folder / "report.html", summary or run.summary, run.rows, run.cases, histories, budget)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def label_maps(frame: dict) -> np.ndarray:
    """(2, h, w): prediction and truth of a frame as the page holds them."""
    maps = zlib.decompress(base64.b64decode(frame["labels"]))
    return np.frombuffer(maps, np.uint8).reshape(2, *frame["size"])
