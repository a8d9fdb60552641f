"""Rows of mixed tables: cells to tensors and back, and what has density 0."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskedflow.tables import Rows, Schema, to_rows, to_table
from table_strategies import tables

FIELDS = ("codes", "values", "observed", "angles", "angles_observed", "impossible")


def assert_same(found: pa.Table, wanted: pa.Table) -> None:
    assert found.schema.types == wanted.schema.types
    for name in wanted.column_names:
        x, y = found[name], wanted[name]
        if pa.types.is_dictionary(x.type):
            x, y = x.cast(pa.string()), y.cast(pa.string())
        if name == "wind":
            np.testing.assert_allclose(x.to_numpy(), y.to_numpy(), atol=1e-11)
        elif pa.types.is_floating(x.type):
            # What a rounding beside a grid is, is put on it.
            np.testing.assert_allclose(x.to_numpy(), y.to_numpy(), rtol=1e-15)
        else:
            assert x.equals(y), name


def assert_equal(found: Rows, wanted: Rows) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def rows_of(cells: dict[str, Any], given: dict[str, Any], others: dict[str, Any]) -> Rows:
    """Other rows, by the schema of a table."""
    schema = Schema.infer(pa.table(cells), overrides=given)
    return to_rows(schema, pa.table(others))


# ---------------------------------------------------------------- there and back


@given(st.data(), st.booleans())
def test_a_table_of_every_kind_comes_back(data: st.DataObject, missing: bool) -> None:
    table, known = data.draw(tables(missing))
    known = {name: known[name] for name in known if name in table.column_names}
    schema = Schema.infer(table, "model" if missing else "error", known)
    rows = to_rows(schema, table)
    assert not rows.impossible.any()
    assert_same(to_table(schema, rows), table)
    assert Schema.from_toml(schema.to_toml()) == schema

    layout = schema.layout
    levels = torch.tensor(layout.levels, dtype=torch.int64)
    assert ((rows.codes >= 0) & (rows.codes < levels)).all()
    assert ((rows.angles >= -math.pi) & (rows.angles < math.pi)).all()
    for i, (state, step) in enumerate(zip(layout.value_state, layout.steps, strict=True)):
        value, observed = rows.values[:, i], rows.observed[:, i]
        wanted = torch.ones(len(rows)) if state is None else rows.codes[:, state] == 0
        assert torch.equal(observed, wanted.bool())
        assert (value[~observed] == 0).all()
        value = value[observed]
        low, high = layout.lows[i], layout.highs[i]
        if low is not None:
            assert (value >= low if step else value > low).all()
        if high is not None:
            assert (value < high).all()


@given(st.data())
def test_cuts_and_the_order_of_rows_and_columns_do_not_matter(data: st.DataObject) -> None:
    table, known = data.draw(tables(True))
    known = {name: known[name] for name in known if name in table.column_names}
    schema = Schema.infer(table, "model", known)
    rows = to_rows(schema, table)
    order = np.random.default_rng(0).permutation(table.num_rows)
    shuffled = table.take(order).select(table.column_names[::-1])
    assert_equal(to_rows(schema, shuffled), rows[torch.from_numpy(order)])
    cut = len(order) // 2
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert_equal(to_rows(schema, chunked), rows)
    assert_equal(to_rows(schema, table.slice(cut)), rows[cut:])


def test_whatever_a_density_draws_is_a_table_it_can_score() -> None:
    """Values anywhere in their cells, and at the bounds as sigmoids and exponentials reach them."""
    rng = np.random.default_rng(0)
    n = 400
    table = pa.table(
        {
            "plain": rng.normal(size=n),
            "positive": np.exp(rng.normal(size=n).astype(np.float32)),
            "share": rng.beta(0.5, 0.5, n),
            "third": rng.uniform(0.1, 0.3, n).astype(np.float32),
            "count": rng.integers(0, 60, n),
            "percent": rng.integers(0, 101, n),
            "zeros": np.where(rng.random(n) < 0.5, 0, rng.integers(0, 70, n)),
            "income": (np.exp(rng.normal(size=n)) * 1e4).astype(np.int64),
            "wind": rng.uniform(0, 360, n),
            "word": rng.choice(["u", "v"], n),
        }
    )
    known: dict[str, dict[str, Any]] = {
        "third": {"low": 0.1, "high": 0.3},
        "wind": {"period": 360},
        "income": {"kind": "positive", "step": 0},
        "zeros": {"low": 0},
    }
    schema = Schema.infer(table, overrides=known)
    assert [c.name for c in schema.coded] == ["zeros", "word"]
    rows, layout = to_rows(schema, table), schema.layout
    values = rows.values + torch.rand(n, 1) * torch.tensor(layout.steps)
    for i, (low, high) in enumerate(zip(layout.lows, layout.highs, strict=True)):
        values[0, i] = low if low is not None else values[0, i]
        values[1, i] = high if high is not None else values[1, i]
    edges = torch.tensor([[-math.pi], [-1e-300], [math.nextafter(math.pi, 0)]], dtype=torch.float64)
    angles = torch.cat([edges, rows.angles[3:]])
    drawn = Rows(rows.codes, values, rows.observed, angles, rows.angles_observed, rows.impossible)
    sampled = to_table(schema, drawn)
    assert sampled.schema == table.schema
    again = to_rows(schema, sampled)
    assert not again.impossible.any()
    for name in ("count", "percent", "zeros"):  # each number owns the cell above it
        assert sampled[name].slice(2).equals(table[name].slice(2))
    assert torch.equal(again.codes, rows.codes)


def test_the_grid_leaves_no_cell_for_an_atom() -> None:
    """Else some probability would be spent on rows that are always scored as the atom."""
    hours = np.concatenate([np.repeat(40, 100), np.arange(1, 81).repeat(3)])
    rows = rows_of({"hours": hours}, {}, {"hours": [1, 39, 40, 41, 80]})
    assert rows.codes[:, 0].tolist() == [0, 0, 1, 0, 0]
    assert rows.values[:, 0].tolist() == [0, 38, 0, 39, 78]


# ---------------------------------------------------------------- density 0 and errors


@pytest.mark.parametrize(
    ("cells", "given_", "others", "wanted"),
    [
        (["a", "b"] * 9, {}, ["a", "c", "b"], [0, 1, 0]),
        ([1, 2, 3] * 9, {}, [3, 4, 2], [0, 1, 0]),
        ([True, False], {}, [0, 1], [0, 0]),
        (np.arange(60) / 7, {"low": -1}, [-1.0, -2.0, -0.9], [1, 1, 0]),
        (np.arange(60) / 7, {"low": -1, "high": 9}, [8.9, 9.0, 9.1], [0, 1, 1]),
        (np.arange(60) / 7, {"low": 0}, [0.0, -1e-9, 1e-9], [0, 1, 0]),  # 0 is an atom
        (np.arange(60), {}, [3.0, 3.5, -70.0], [0, 1, 0]),
        (np.arange(60), {"low": 0, "step": 1}, [0, -1, 500], [0, 1, 0]),
        (np.arange(60) % 40 / 10, {"step": 0.1}, [0.3, 0.35, 0.1 + 0.2], [0, 1, 0]),
        ([7, 7, 7], {}, [7, 8], [0, 1]),
        (["u", "u"], {}, ["u", "v"], [0, 1]),
        (np.arange(9.0) / 7, {"period": 360}, [725.0, -1.0], [0, 0]),
    ],
)
def test_what_a_column_cannot_hold_has_density_zero(
    cells: Any, given_: dict[str, Any], others: Any, wanted: list[int]
) -> None:
    rows = rows_of({"x": cells}, {"x": given_} if given_ else {}, {"x": others})
    assert rows.impossible.int().tolist() == wanted
    assert rows.values.isfinite().all()


def test_a_duplicate_has_to_be_one() -> None:
    a = np.arange(20) / 7
    rows = rows_of({"a": a, "b": a}, {}, {"a": [0.5, 0.5], "b": [0.5, 0.6]})
    assert rows.impossible.tolist() == [False, True]
    assert rows.values.shape == (2, 1)


def test_impossible_values_stay_within_bounds() -> None:
    """A logarithm of them would spoil the gradients of the other rows."""
    cells = {"a": np.arange(60) / 7, "b": np.arange(60)}
    known = {"a": {"low": -1, "high": 9}, "b": {"low": 0, "step": 1}}
    schema = Schema.infer(pa.table(cells), overrides=known)
    rows = to_rows(schema, pa.table({"a": [99.0], "b": [-5]}))
    assert rows.impossible.all()
    assert rows.observed.all()
    (low, floor), (high, _) = schema.layout.lows, schema.layout.highs
    assert low is not None
    assert high is not None
    assert low < rows.values[0, 0] < high
    assert rows.values[0, 1] == floor


def test_missing_where_none_was_seen_has_density_zero() -> None:
    cells = pa.table({"a": np.arange(60) / 7, "b": pa.array([None, "u", "v"] * 20)})
    schema = Schema.infer(cells, "model")
    rows = to_rows(schema, pa.table({"a": [None, 1.0], "b": ["u", None]}))
    assert rows.impossible.tolist() == [True, False]
    assert rows.codes[1].tolist() == [2]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"a": [1.0, math.inf], "b": ["u", "u"]}, "'a', row 12: expected a finite number, found i"),
        ({"a": [1.0, None], "b": ["u", "u"]}, r"'a', row 12: missing \(1 of 2 values are\)"),
        ({"a": [1.0, math.nan], "b": ["u", "u"]}, "'a', row 12: missing"),
        ({"a": ["1", "2"], "b": ["u", "u"]}, "'a': expected numbers, found type string"),
        ({"a": [1.0, 2.0], "b": [0.5, 1.5]}, "'b': expected strings, found type double"),
        ({"a": [1.0, 2.0]}, "expected a column 'b', found a"),
    ],
)
def test_errors_name_column_and_row(others: dict[str, Any], message: str) -> None:
    schema = Schema.infer(pa.table({"a": np.arange(60) / 7, "b": ["u", "v"] * 30}))
    with pytest.raises(ValueError, match=message):
        to_rows(schema, pa.table(others), start=10)


@given(st.data())
def test_text_is_parsed_to_the_same_rows(data: st.DataObject) -> None:
    """A stream of text has no types; those of the schema make of it what the frame was."""
    table, known = data.draw(tables(False))
    schema = Schema.infer(table, overrides=known)
    text = io.BytesIO()
    pacsv.write_csv(table, text)
    types = {field.name: field.type for field in schema.arrow_schema}
    convert = pacsv.ConvertOptions(column_types=types)
    parsed = pacsv.read_csv(io.BytesIO(text.getvalue()), convert_options=convert)
    assert_equal(to_rows(schema, parsed), to_rows(schema, table))
