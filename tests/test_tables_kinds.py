"""A kind of column of one's own: a class in one file, known wherever columns are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from commands import call
from maskedflow import DensityEstimator
from maskedflow.columns import Value
from maskedflow.columns.column import KINDS
from maskedflow.report.of_table import column_of
from maskedflow.tables import Column, Schema, to_arrow, to_rows, to_table

N = 300


class Percentage(Value, kinds=("percentage",)):
    """A column of texts such as "45%": whole numbers from 0 to 100."""

    wanted: ClassVar[str] = "text such as 45%"
    fits = staticmethod(pa.types.is_string)

    @classmethod
    def infer(
        cls, name: str, cells: pa.ChunkedArray, given: dict[str, Any]
    ) -> dict[str, Any] | None:
        if not cls.fits(cells.type):
            return None
        if not pc.all(pc.match_substring_regex(cells, r"^\d+%$")).as_py():
            return None
        found = {"kind": "percentage", "note": "numbers before %"}
        return found | {"low": 0.0, "high": 100.0, "step": 1.0}

    def numbers(self, cells: pa.ChunkedArray, start: int = 0, *, strict: bool = True) -> Any:
        try:
            return pc.utf8_rtrim(cells, "%").cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise self.error(f"expected {self.wanted}: {error}") from None

    def cells(self, x: Any, present: Any) -> pa.Array:
        return pa.array([f"{number:g}%" for number in x], mask=~present)

    @property
    def text(self) -> Any:
        return "{:g}%".format


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    shares = [f"{share}%" for share in rng.binomial(100, 0.4, N)]
    gaps = rng.random(N) < 0.1
    return pa.table({"share": pa.array(shares, mask=gaps), "x": rng.normal(size=N)})


def test_cells_are_told_encoded_and_written_back() -> None:
    schema = Schema.infer(table(), "model")
    share = schema.columns[0]
    assert isinstance(share, Percentage)
    assert share.summary == "percentage (0 to 100), steps of 1, may be missing"
    assert share.note.startswith("numbers before %; ")
    assert to_table(schema, to_rows(schema, table())).equals(table())
    odd = pa.table({"share": ["101%", "4.5%", None], "x": [0.0, 0.0, 0.0]})
    assert to_rows(schema, odd).impossible.tolist() == [True, True, False]
    with pytest.raises(ValueError, match="column 'share': expected text such as 45%"):
        to_rows(schema, pa.table({"share": ["few"], "x": [0.0]}))


def test_it_is_declared_and_read_from_a_file_as_all_are() -> None:
    schema = Schema.infer(table(), "model", {"share": {"kind": "percentage", "high": 90}})
    assert schema.columns[0].high == 90
    assert Schema.from_toml(schema.to_toml()) == schema
    with pytest.raises(ValueError, match="'x': kind 'percentage' needs text such as 45%, found"):
        Schema.infer(table(), "model", {"x": {"kind": "percentage"}})


@pytest.mark.usefixtures("blank")
def test_an_estimator_fits_it_and_a_page_shows_it(tmp_path: Path) -> None:
    estimator = DensityEstimator("gaussian", missing="model", work=0.1, random_state=0)
    estimator.fit(table())
    scores = estimator.score_samples(table())
    assert np.isfinite(scores).all()
    estimator.save(tmp_path / "e.safetensors")
    loaded = DensityEstimator.load(tmp_path / "e.safetensors")
    assert np.array_equal(loaded.score_samples(table()), scores)
    drawn = to_arrow(loaded.sample(50, random_state=0))
    assert pc.all(pc.match_substring_regex(drawn["share"], r"^\d+%$")).as_py()
    given = DensityEstimator("gaussian", missing="model", work=0.1, random_state=0)
    given.fit(table().select(["x"]), context=table().select(["share"]))
    assert np.isfinite(given.score(table().select(["x"]), context=table().select(["share"])))
    loaded.report(table(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "percentage (0 to 100)" in page
    assert column_of(loaded.schema_.columns[0]).text(45.0) == "45%"


def test_the_command_line_knows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, known = tmp_path / "t.parquet", tmp_path / "known.toml"
    pq.write_table(table(), path)
    known.write_text('[columns.share]\nkind = "percentage"\nlow = 0.0\n')
    code, told, err = call(capsys, "schema", path, "--schema", known, "--missing", "model")
    assert (code, err) == (0, "")
    assert "percentage (0 to 100)" in told


def test_a_column_is_of_the_class_of_its_kind() -> None:
    column = Column("a", "positive", pa.float64(), low=0.0)
    assert type(column) is KINDS["positive"]
    assert repr(column).startswith("Column(name='a', kind='positive', type=DataType(double), low=")
    assert replace(column, kind="bounded", high=1.0).summary == "bounded (0 to 1)"
    with pytest.raises(ValueError, match="'a': kind: 'angle' is none of class Number"):
        replace(column, kind="angle", period=1.0)
    with pytest.raises(ValueError, match=r"'a': kind: expected one of .*angle, .* got 'odd'"):
        Column("a", "odd", pa.float64())
