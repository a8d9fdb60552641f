"""What a notebook shows: tables, pages in frames, and progress."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pyarrow as pa
import pytest
import torch
from nbclient import NotebookClient

from commands import pair
from maskedflow import data
from maskedflow.columns import Schema
from maskedflow.report.page import Page
from maskedflow.training import EpochRecord, History
from maskedflow.training.notebook import NotebookProgress


def cells(html: str) -> list[list[str]]:
    """The text of a table's cells."""
    return [re.findall("<t[hd]>(.*?)</t[hd]>", line) for line in html.split("<tr>")[1:]]


def test_a_data_set_shows_its_columns(tmp_path: Path) -> None:
    table = data.open_table(pair(tmp_path, 100), context=["b"])
    html = table._repr_html_()
    assert ["rows", "80 to train, 10 to validate, 10 to test"] in cells(html)
    assert ["context", "b"] in cells(html)
    name, mean, deviation, lowest, _ = cells(html)[-2]
    assert name == "a"
    found = [float(mean), float(deviation), float(lowest)]
    wanted = table.train.x.double()
    np.testing.assert_allclose(found, [wanted.mean(), wanted.std(), wanted.min()], rtol=1e-3)


def test_of_many_columns_some_are_shown() -> None:
    split = data.Split(torch.zeros(3, 30, dtype=torch.uint8))
    names = tuple(f"<{i}>" for i in range(30))
    html = data.Dataset("images", split, split, split, names)._repr_html_()
    assert html.count("&lt;") == 20
    assert html.endswith("<p>10 more</p>")


def test_a_schema_shows_a_line_a_column() -> None:
    schema = Schema.infer(pa.table({"a<b": ["x", "y", "y"]}))
    assert cells(schema._repr_html_())[1] == ["a&lt;b", "categorical, 2 levels", "strings"]


def test_a_history_shows_its_latest_epochs() -> None:
    records = tuple(EpochRecord(i, i, 3.0, 3 - 0.1 * i, 1e-3, 2.0, 0, 0) for i in range(1, 13))
    html = History(records, best_epoch=12, stopped_because="patience")._repr_html_()
    assert ["best validation NLL", "1.8000 nats"] in cells(html)
    assert cells(html)[-10][0] == "12"
    assert html.endswith("<p>2 more</p>")


def test_a_page_is_in_a_frame() -> None:
    html = Page("<mine>", ())._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert html.count('"') == 4  # what the page itself has is escaped
    assert "&lt;!doctype html&gt;" in html.lower()


def test_progress_is_drawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(
        "IPython.display.DisplayHandle.display", lambda _, html: shown.append(html.data)
    )
    monkeypatch.setattr(
        "IPython.display.DisplayHandle.update", lambda _, html: shown.append(html.data)
    )
    with NotebookProgress("{task.description}") as bar:
        task = bar.add_task("one", total=2)
        bar.update(task, description="two & more", completed=1)
    assert "two &amp; more" in shown[-1]
    assert "<pre" in shown[0]


NOTEBOOK = """
import maskedflow as mf
moons = mf.data.load("moons")
moons
---
flow = mf.flows.MAF(2, transforms=1)
config = mf.training.TrainConfig(epochs=2)
history = mf.training.fit(flow, moons.train, moons.validation, config, progress=True)
history
---
mf.plot.corner(flow, n=500);
"""


@pytest.mark.slow
def test_a_notebook_shows_them(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in NOTEBOOK.split("---")]
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in book.cells]
    assert "to validate" in outputs[0][-1].data["text/html"]
    progress, history = outputs[1]
    assert "epoch 2/2" in progress.data["text/html"]
    assert "best validation NLL" in history.data["text/html"]
    assert any("image/png" in output.get("data", {}) for output in outputs[2])
