"""Tables in every container: fitted alike and given back alike, or refused in one line.

Run by hand: `python benchmarks/faults/containers.py`. xarray, anesthetic and astropy are tried
where they are installed. Prints what was tried and whether it held; exits with 1 if not.
"""

from __future__ import annotations

import datetime as dt
import importlib
import sys
import tempfile
import warnings
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from harness import asked, each, tell

from maskedflow import DensityEstimator
from maskedflow.data import open_source
from maskedflow.tables import to_arrow

N = 300
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
HIDDEN = RNG.random(X.shape) < 0.2
FOLDER = Path(tempfile.mkdtemp())
CHECKS: dict[str, Callable[[], Any]] = {}


def check(name: str, *arguments: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Keeps a function to be run; what it asserts has to hold."""

    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        assert name not in CHECKS, name
        CHECKS[name] = partial(function, *arguments)
        return function

    return keep


def fitted(frame: Any, missing: str = "model", **given: Any) -> DensityEstimator:
    """An estimator of a single Gaussian."""
    return DensityEstimator("gaussian", missing=missing, time_limit=2).fit(frame, **given)


def loaded(estimator: DensityEstimator) -> DensityEstimator:
    """The same from a file."""
    estimator.save(FOLDER / "e.safetensors")
    return DensityEstimator.load(FOLDER / "e.safetensors")


def refused(words: Any, call: Callable[..., Any], *args: Any, **given: Any) -> None:
    """A call has to raise one line with these words in it."""
    try:
        made = call(*args, **given)
    except (ValueError, TypeError) as error:
        text = str(error)
        assert "\n" not in text, f"more than a line: {text!r}"
        for word in (words,) if isinstance(words, str) else words:
            assert word in text, f"expected {word!r} in {text!r}"
        return
    raise AssertionError(f"accepted: {str(made)[:80]}")


# ------------------------------------------------------------------------------ arrays of numbers

WANTED = fitted(X, "error").score(X)
WITH_GAPS = fitted(np.where(HIDDEN, np.nan, X)).score(np.where(HIDDEN, np.nan, X))
RECORDS = np.rec.fromarrays([X[:, 0].astype(">f8"), X[:, 1]], names="a,b")
NAMES = {"a": X[:, 0], "b": X[:, 1]}

SAME: dict[str, Any] = {
    "big-endian": X.astype(">f8"),
    "Fortran order": np.asfortranarray(X),
    "read-only": np.broadcast_to(X, (1, N, 2))[0],
    "strides": np.repeat(X, 2, axis=0)[::2],
    "long double": X.astype(np.longdouble),
    "big-endian long double": X.astype(np.longdouble).astype(">f16"),
    "matrix": np.asmatrix(X) if hasattr(np, "asmatrix") else X,
    "masked array without a mask": np.ma.array(X),
    "objects": X.astype(object),
    "lists": X.tolist(),
    "tuples": [tuple(row) for row in X.tolist()],
    "list of arrays": list(X),
    "records": RECORDS,
    "structured array": np.array(RECORDS),
    "mapping of arrays": NAMES,
    "mapping of lists": {name: column.tolist() for name, column in NAMES.items()},
    "mapping of series": {name: pd.Series(column) for name, column in NAMES.items()},
    "mapping of Polars series": {name: pl.Series(column) for name, column in NAMES.items()},
    "mapping of Arrow arrays": {name: pa.array(column) for name, column in NAMES.items()},
    "mapping of tensors": {name: torch.tensor(column) for name, column in NAMES.items()},
    "mapping with places for names": {0: X[:, 0], 1: X[:, 1]},
    "list of mappings": [{"a": a, "b": b} for a, b in X.tolist()],
    "pandas": pd.DataFrame(X),
    "pandas, big-endian": pd.DataFrame({"a": X[:, 0].astype(">f8"), "b": X[:, 1].astype(">f8")}),
    "pandas, long double": pd.DataFrame({"a": X[:, 0].astype(np.longdouble), "b": X[:, 1]}),
    "Polars": pl.DataFrame(X),
    "Polars, lazy": pl.DataFrame(X).lazy(),
    "Arrow": pa.table(NAMES),
    "Arrow in chunks": pa.concat_tables([pa.table(NAMES)[:100], pa.table(NAMES)[100:]]),
    "Arrow batch": pa.record_batch(NAMES),
    "tensor": torch.tensor(X),
    "tensor with a gradient": torch.tensor(X, requires_grad=True),
}
for name, frame in SAME.items():

    @check(f"{name}: the score of the array", frame)
    def _(frame: Any) -> None:
        estimator = fitted(frame, "error")
        assert abs(estimator.score(frame) - WANTED) < 1e-9, estimator.score(frame)
        drawn = loaded(estimator).sample(7, random_state=0)
        for row in (drawn,):
            assert len(row) == 7 or isinstance(row, dict), type(row)


for dtype in ("f2", ">f4", "f4", "i1", "i8", "u2", ">u4", "u8", "?"):

    @check(f"an array of {dtype} comes back as one", dtype)
    def _(dtype: str) -> None:
        x = (np.abs(X * 20) % 2 > 0.5 if dtype == "?" else np.abs(X * 20)).astype(dtype)
        drawn = loaded(fitted(x, "error")).sample(9, random_state=0)
        assert drawn.dtype == x.dtype.newbyteorder("="), drawn.dtype
        assert drawn.dtype.isnative


for dtype in (torch.bfloat16, torch.float16, torch.int16, torch.bool):

    @check(f"a tensor of {dtype}", dtype)
    def _(dtype: Any) -> None:
        assert fitted((torch.tensor(X) * 3).to(dtype), "error").sample(3).shape == (3, 2)


# ------------------------------------------------------------------------------------------ masks

FILL = np.where(HIDDEN, -999.0, X)
MASKED = np.ma.array(FILL, mask=HIDDEN)
MASKED_RECORDS = np.ma.array(
    np.array(list(zip(*FILL.T, strict=True)), [("a", "f8"), ("b", "f8")]),
    mask=list(map(tuple, HIDDEN.tolist())),
)
MASKS: dict[str, Any] = {
    "masked array": MASKED,
    "masked array, big-endian": MASKED.astype(">f8"),
    "masked records": MASKED_RECORDS,
    "masked arrays in a mapping": {"a": MASKED[:, 0], "b": MASKED[:, 1]},
    "list of masked rows": list(MASKED),
    "NaN under the mask": np.ma.array(np.where(HIDDEN, np.nan, X), mask=HIDDEN),
    "infinity under the mask": np.ma.array(np.where(HIDDEN, np.inf, X), mask=HIDDEN),
    "the constant in objects": [
        [np.ma.masked if h else x for x, h in zip(*row, strict=True)]
        for row in zip(X.tolist(), HIDDEN.tolist(), strict=True)
    ],
    "masked objects": np.ma.array(FILL.astype(object), mask=HIDDEN),
}
for name, frame in MASKS.items():

    @check(f"{name}: what is masked is missing", frame)
    def _(frame: Any) -> None:
        estimator = fitted(frame)
        assert abs(estimator.score(frame) - WITH_GAPS) < 0.02, (estimator.score(frame), WITH_GAPS)
        drawn = estimator.sample(400, random_state=0)
        x = to_arrow(drawn)
        assert 0.1 < x.column(0).null_count / 400 < 0.3
        refused(("row", "missing"), fitted, frame, "error")
        refused(("row", "missing"), fitted, X, "error", context=frame)
        refused("missing", fitted(X, "error").score_samples, np.ma.array(X, mask=HIDDEN))


@check("masked integers, texts and given=")
def _() -> None:
    x = np.ma.array(RNG.integers(0, 50, (N, 2)), mask=HIDDEN)
    drawn = fitted(x).sample(200, random_state=0)
    assert 0.1 < np.isnan(drawn).mean() < 0.3
    found = fitted(MASKED).score_samples_given(MASKED[:9], given=[0])
    assert np.isfinite(found.log_density).all()
    text = np.ma.array(np.where(HIDDEN, "-", np.where(X > 0, "u", "v")), mask=HIDDEN)
    assert set(fitted(text).sample(200, random_state=0).ravel()) == {"u", "v", None}


@check("masked weights are refused")
def _() -> None:
    weight = np.ma.array(np.ones(N), mask=HIDDEN[:, 0])
    refused(("sample_weight", "masked"), fitted, X, sample_weight=weight)
    fitted(X, sample_weight=np.ma.array(np.ones(N)))


# ------------------------------------------------------------------------------------------- text


@check("arrays of text and bytes")
def _() -> None:
    for dtype in ("<U1", ">U3", "S1", object):
        x = np.where(X > 0, "u", "v").astype(dtype)
        e = fitted(x, "error")
        drawn = loaded(e).sample(50, random_state=0)
        kind = np.dtype(dtype).newbyteorder("=")
        assert drawn.dtype == kind, drawn.dtype
        assert set(drawn.ravel()) == set(x.ravel())
        assert np.isfinite(e.score_samples(x)).all()
    refused(("'x0'", "row 1", "UTF-8"), fitted, np.array([[b"\xff"]] * 9))
    refused(("'s'", "row 2", "UTF-8"), fitted, pd.DataFrame({"s": [b"a", b"\xe9"]}))


@check("numbers beside text in lists stay numbers")
def _() -> None:
    rows = [[float(a), "u" if b > 0 else "v"] for a, b in X]
    assert [column.kind for column in fitted(rows).schema_.columns] == ["continuous", "categorical"]


# -------------------------------------------------------------------------------- pandas' columns


def choice(*values: Any) -> list[Any]:
    """N of these."""
    return [values[i] for i in RNG.integers(0, len(values), N)]


def gaps(series: pd.Series) -> pd.Series:
    """A fifth of them missing."""
    return series.mask(HIDDEN[:, 0])


DAYS = pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), "D")
ARROW = pd.ArrowDtype
SERIES: dict[str, pd.Series] = {
    "Int64": gaps(pd.Series(RNG.integers(0, 500, N), dtype="Int64")),
    "UInt8": gaps(pd.Series(RNG.integers(0, 200, N), dtype="UInt8")),
    "Float32": gaps(pd.Series(X[:, 0], dtype="Float32")),
    "boolean": gaps(pd.Series(X[:, 0] > 0, dtype="boolean")),
    "int8": pd.Series(RNG.integers(0, 90, N), dtype="int8"),
    "float16": pd.Series(X[:, 0], dtype="float16"),
    "float32": gaps(pd.Series(X[:, 0], dtype="float32")),
    "bool": pd.Series(X[:, 0] > 0),
    "str": gaps(pd.Series(choice("u", "v"))),
    "object text": gaps(pd.Series(choice("u", "v"), dtype=object)),
    "object ints": gaps(pd.Series(choice(1, 2, 3), dtype=object)),
    "object bools": gaps(pd.Series(choice(True, False), dtype=object)),
    "object dates": gaps(pd.Series([day.date() for day in DAYS], dtype=object)),
    "object decimals": pd.Series([Decimal(int(x * 100)) / 100 for x in X[:, 0]], dtype=object),
    "object bytes": gaps(pd.Series(choice(b"u", b"v"), dtype=object)),
    "object times": pd.Series([dt.time(int(h)) for h in RNG.integers(0, 24, N)], dtype=object),
    "string": gaps(pd.Series(choice("u", "v"), dtype="string")),
    "string[python]": gaps(pd.Series(choice("u", "v"), dtype="string[python]")),
    "string[pyarrow]": gaps(pd.Series(choice("u", "v"), dtype="string[pyarrow]")),
    "int64[pyarrow]": gaps(pd.Series(RNG.integers(0, 500, N), dtype="int64[pyarrow]")),
    "double[pyarrow]": gaps(pd.Series(X[:, 0], dtype="double[pyarrow]")),
    "bool[pyarrow]": gaps(pd.Series(X[:, 0] > 0, dtype="bool[pyarrow]")),
    "ArrowDtype string": gaps(pd.Series(choice("u", "v"), dtype=ARROW(pa.string()))),
    "ArrowDtype string_view": pd.Series(choice("u", "v"), dtype=ARROW(pa.string_view())),
    "ArrowDtype timestamp": gaps(pd.Series(DAYS).astype(ARROW(pa.timestamp("us", "UTC")))),
    "ArrowDtype decimal": pd.Series(choice(*map(Decimal, "123")), dtype=ARROW(pa.decimal128(9, 2))),
    "ArrowDtype dictionary": pd.Series(
        pd.array(choice("u", "v"), dtype=ARROW(pa.dictionary(pa.int8(), pa.string())))
    ),
    "category": gaps(pd.Series(pd.Categorical(choice("u", "v"), categories=["w", "v", "u"]))),
    "ordered category": pd.Series(
        pd.Categorical(choice("u", "v"), categories=["v", "w", "u"], ordered=True)
    ),
    "category of ints": pd.Series(pd.Categorical(choice(3, 5), categories=[7, 5, 3])),
    "category of ids": pd.Series(pd.Categorical(choice(2**60 + 1, 2**60 + 2))),
    "category of floats": pd.Series(pd.Categorical(choice(0.1, 1.0, 2.5))),
    "category of bools": pd.Series(pd.Categorical(choice(True, False))),
    "category of days": pd.Series(pd.Categorical(choice(*pd.date_range("2020", periods=3)))),
    "category of moments": pd.Series(
        pd.Categorical(choice(*pd.date_range("2020", periods=3, tz="Europe/Berlin")))
    ),
    "category of periods": pd.Series(
        pd.Categorical(choice(*pd.period_range("2020", periods=3, freq="M")))
    ),
    "category of objects": pd.Series(
        pd.Categorical(choice("u", "v"), categories=pd.Index(["u", "v"], dtype=object))
    ),
    "cut": gaps(pd.Series(X[:, 0])).pipe(pd.cut, [-9, -1, 0, 1, 9]),
    "cut by number": pd.cut(pd.Series(X[:, 0]), 5),
    "cut with the left edge": pd.cut(pd.Series(X[:, 0]), [-9, 0, 9], right=False),
    "qcut": pd.qcut(pd.Series(X[:, 0]), 4),
    "cut of times": pd.cut(pd.Series(DAYS), 3),
    "cut with labels": pd.cut(pd.Series(X[:, 0]), [-9, 0, 9], labels=["low", "high"]),
    "cut to places": pd.cut(pd.Series(X[:, 0]), [-9, 0, 9], labels=False),
    "period": pd.Series(pd.PeriodIndex(DAYS, freq="M")),
    "period with gaps": gaps(pd.Series(pd.PeriodIndex(DAYS, freq="D"))),
    "datetime ns": gaps(pd.Series(DAYS.astype("datetime64[ns]"))),
    "datetime s": gaps(pd.Series(DAYS.astype("datetime64[s]"))),
    "datetime with a zone": gaps(pd.Series(DAYS.tz_localize("Europe/Berlin"))),
    "timedelta": gaps(pd.Series(pd.to_timedelta(RNG.integers(0, 900, N), "min"))),
    "constant category": pd.Series(pd.Categorical(["u"] * N, categories=["u", "v"])),
    "constant Int64": pd.Series([4] * N, dtype="Int64"),
    "all missing": pd.Series([None] * N, dtype="Float64"),
    "constant interval": pd.cut(pd.Series(np.ones(N)), [0, 2, 3]),
}
for name, series in SERIES.items():

    @check(f"pandas {name}: there and back", series)
    def _(series: pd.Series) -> None:
        frame = pd.DataFrame({"it": series.array, "other": X[:, 1], "again": series.array})
        e = fitted(frame)
        assert np.isfinite(e.score_samples(frame)).all()
        again = loaded(e)
        assert np.array_equal(again.score_samples(frame), e.score_samples(frame))
        for one in (e, again):
            drawn = one.sample(60, random_state=0)
            for column in frame:
                assert drawn[column].dtype == frame[column].dtype, (
                    f"{frame[column].dtype} became {drawn[column].dtype}"
                )
            both = pd.concat([frame, drawn])
            assert list(both.dtypes) == list(frame.dtypes), list(both.dtypes)
            assert np.isfinite(one.score_samples(drawn)).mean() > 0.9
        if series.notna().all():
            fitted(X, "error", context=frame[["it"]]).score(X, context=frame[["it"]])
        if "view" in str(series.dtype):  # which pandas cannot filter
            return
        values = set(series.dropna().astype(str))
        if 0 < len(values) < 6:
            assert set(drawn["it"].dropna().astype(str)) <= values


BAD: dict[str, tuple[Any, str]] = {
    "sparse": (pd.arrays.SparseArray([0.0, 1.0] * 9), "Sparse"),
    "intervals": (pd.arrays.IntervalArray.from_breaks(range(19)), "struct"),
    "complex": (np.arange(18) * 1j, "complex"),
    "mixed": ([1, "a"] * 9, "Could not convert"),
    "lists": ([[1, 2]] * 18, "list"),
    "mixed categories": (pd.Categorical([1, "a"] * 9), "Could not convert"),
    "pairs as categories": (pd.Categorical([(1, 2), (3, 4)] * 9), ""),
    "ids of 25 digits": ([10**24 + i for i in range(18)], "row 1"),
    "ids past 2^63": ([2**63 + i for i in range(18)], "row 1"),
    "ids past 2^53": ([5, 2**53 + 1] * 9, "row 2"),
    "unsigned ids": (np.array([5, 2**63 + 1] * 9, np.uint64), "row 2: expected an integer"),
    "Int64 ids": (pd.array([5, 2**60 + 1] * 9, "Int64"), str(2**60 + 1)),
    "arrow ids": (pd.array([5, 2**60 + 1] * 9, "int64[pyarrow]"), str(2**60 + 1)),
    "decimal ids": ([Decimal(5), Decimal(10**20 + 1)] * 9, str(10**20 + 1)),
    "decimal256 ids": ([Decimal(5), Decimal(10**50 + 1)] * 9, str(10**50 + 1)),
    "negative ids": ([5, -(2**53) - 1] * 9, str(-(2**53) - 1)),
    "infinity": ([0.0, np.inf] * 9, "row 2"),
    "two levels past 2^53": ([2**53, 2**53 + 1] * 9, "row 1"),
}
for name, (values, word) in BAD.items():

    @check(f"pandas {name}: refused, and the column is named", values, word)
    def _(values: Any, word: str) -> None:
        frame = pd.DataFrame({"fine": range(18), "bad": pd.Series(values)})
        refused(("'bad'", word), fitted, frame)
        refused("'bad'", fitted, {"fine": range(18), "bad": values})
        refused("'bad'", fitted, X[:18], context=frame)
        if isinstance(values, list) and word != "list":
            refused("'x1'", fitted, [[1.0, value] for value in values])
            refused("'bad'", fitted, [{"bad": value} for value in values])
            array = np.empty((18, 2), object)
            array[:, 0], array[:, 1] = 1.0, values
            refused("'x1'", fitted, array)


@check("arrays of ids past 2^53")
def _() -> None:
    for dtype in ("i8", "u8", ">i8"):
        ids = (np.arange(18).reshape(9, 2) + 2**53).astype(dtype)
        refused(("'x0'", "row 1"), fitted, ids)
    refused(("'x0'", "row 1"), fitted, [[2**53 + 1, 0.5], [1, 0.5]])
    e = fitted(np.arange(18).reshape(9, 2))
    refused(("'x0'", "row 1"), e.score_samples, [[2**53 + 1, 1]])


LABELS: dict[str, Any] = {
    "places": [0, 1],
    "numbers": pd.Index([7, 5], name="channel"),
    "mixed": [0, "a"],
    "pairs": pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"]),
    "flat pairs": pd.Index([("a", 1), ("b", 2)], tupleize_cols=False),
    "floats": [0.5, 1.5],
    "days": pd.date_range("2020", periods=2),
    "periods": pd.period_range("2020", periods=2, freq="M"),
    "truths": [True, False],
    "categories": pd.CategoricalIndex(["u", "v"]),
    "NumPy's": pd.Index([np.int8(3), np.int8(4)]),
}
for name, labels in LABELS.items():

    @check(f"labels that are {name} come back", labels)
    def _(labels: Any) -> None:
        frame = pd.DataFrame(X)
        frame.columns = labels
        for one in (fitted(frame), loaded(fitted(frame))):
            drawn = one.sample(5, random_state=0)
            assert drawn.columns.equals(frame.columns), (drawn.columns, frame.columns)
            assert drawn.columns.names == frame.columns.names
            assert pd.concat([frame, drawn]).shape == (N + 5, 2)
        name = next(iter(frame.columns))
        DensityEstimator("gaussian", schema={name: {"kind": "continuous"}}).fit(frame)
        if not isinstance(name, int | np.integer):
            fitted(frame).score_samples_given(frame[:3], given=[name])


@check("labels that are the same as text are refused")
def _() -> None:
    refused(("'a'", "twice"), fitted, pd.DataFrame(X, columns=["a", "a"]))
    refused(("'0'", "twice"), fitted, pd.DataFrame(X, columns=[0, "0"]))
    refused(("'0'", "twice"), fitted, {0: X[:, 0], "0": X[:, 1]})
    refused(("'a'", "twice"), fitted, pa.table([X[:, 0], X[:, 1]], names=["a", "a"]))


# --------------------------------------------------------------------------------- Arrow and Polars


class Code(pa.ExtensionType):
    """An extension that Arrow does not know."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "tests.code")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Code:
        return cls()


pa.register_extension_type(Code())
TEXT = pa.array(["u" if x > 0 else None if x < -1 else "v" for x in X[:, 0]])
WHOLE = pa.array(RNG.integers(0, 40, N))
CELLS: dict[str, Any] = {
    **{str(k): TEXT.cast(k) for k in (pa.string_view(), pa.large_string())},
    **{
        str(k): TEXT.cast(pa.binary()).cast(k)
        for k in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1))
    },
    **{
        f"index {k}": TEXT.dictionary_encode().cast(pa.dictionary(k, pa.string()))
        for k in (pa.int8(), pa.uint8(), pa.int16(), pa.uint32(), pa.int64(), pa.uint64())
    },
    "dictionary of views": pa.DictionaryArray.from_arrays(
        TEXT.dictionary_encode().indices, TEXT.dictionary_encode().dictionary.cast(pa.string_view())
    ),
    "dictionary with a null": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2] * (N // 3)), pa.array(["u", None, "v"])
    ),
    "dictionary of numbers": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2] * (N // 3)), pa.array([0.5, 1.5, 2.0])
    ),
    "dictionaries in chunks": pa.chunked_array(
        [pa.array(pair * 75).dictionary_encode() for pair in (["u", "v"], ["w", "u"])]
    ),
    "runs": pc.run_end_encode(TEXT),
    "runs of numbers": pc.run_end_encode(WHOLE),
    "decimal32": pa.array([Decimal(int(x * 100)) / 100 for x in X[:, 0]], pa.decimal32(6, 2)),
    "decimal128": pa.array([Decimal(int(x * 100)) / 100 for x in X[:, 0]]),
    "decimal256": pa.array([Decimal(int(x * 100)) / 100 for x in X[:, 0]], pa.decimal256(40, 2)),
    "halves": pa.array(X[:, 0].astype(np.float16)),
    "unsigned": WHOLE.cast(pa.uint64()),
    "extension": pa.ExtensionArray.from_storage(Code(), TEXT),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array((X[:, 0] > 0).astype(np.int8))),
    "time32": WHOLE.cast(pa.int32()).cast(pa.time32("s")),
    "duration": WHOLE.cast(pa.duration("ms")),
    "date64": (WHOLE.cast(pa.int32())).cast(pa.date32()).cast(pa.date64()),
    "timestamp with an offset": WHOLE.cast(pa.timestamp("s", "+02:00")),
    "null": pa.nulls(N),
}
for name, cells in CELLS.items():

    @check(f"Arrow {name}: there and back", cells)
    def _(cells: Any) -> None:
        table = pa.table({"it": cells, "other": X[:, 1]})
        for frame in (table, table.slice(10, 250)):
            e = fitted(frame)
            assert np.isfinite(e.score_samples(frame)).all()
            for one in (e, loaded(e)):
                drawn = one.sample(40, random_state=0)
                assert drawn.schema == table.schema, drawn.schema
                assert np.isfinite(one.score_samples(drawn)).all()


@check("Arrow: what nothing is known about is refused")
def _() -> None:
    for cells in (
        pa.array([[1, 2]] * 9),
        pa.array([{"a": 1}] * 9),
        pa.array([b"\xff"] * 9),
        pa.array([bytes(range(200, 216))] * 9, pa.uuid()),
        pa.array([None, (1, 2, 3)] * 9),
    ):
        refused("'bad'", fitted, pa.table({"bad": cells, "b": range(len(cells))}))
    for frame in (pa.array([1.0, 2.0]), pa.chunked_array([[1.0]]), pa.schema({"a": pa.int8()})):
        refused("X", fitted, frame)


POLARS = pl.DataFrame(
    {
        "enum": pl.Series(choice("u", "v"), dtype=pl.Enum(["w", "v", "u"])),
        "category": pl.Series(choice("u", "v", None), dtype=pl.Categorical),
        "decimal": pl.Series(RNG.integers(0, 900, N)).cast(pl.Decimal(9, 2)),
        "date": pl.Series(list(DAYS.to_pydatetime())).cast(pl.Date),
        "zone": pl.Series(list(DAYS.to_pydatetime())).dt.replace_time_zone("Europe/Berlin"),
        "duration": pl.Series(RNG.integers(0, 900, N)).cast(pl.Duration("ms")),
        "time": pl.Series([dt.time(int(h)) for h in RNG.integers(0, 24, N)]),
        "small": pl.Series(RNG.integers(0, 90, N), dtype=pl.UInt8),
        "single": pl.Series(X[:, 0], dtype=pl.Float32),
        "text": choice("u", "v"),
        "binary": choice(b"u", b"v"),
        "truth": choice(True, False, None),
        "null": pl.Series([None] * N),
    }
)


@check("Polars: dtypes come back")
def _() -> None:
    for frame in (POLARS, POLARS.lazy()):
        e = fitted(frame)
        for one in (e, loaded(e)):
            drawn = one.sample(30, random_state=0)
            assert drawn.schema == POLARS.schema, (drawn.schema, POLARS.schema)
            assert pl.concat([POLARS, drawn]).height == N + 30
    table = pa.table(POLARS)  # with views
    drawn = fitted(table).sample(30, random_state=0)
    assert drawn.schema == table.schema
    objects = pl.DataFrame({"a": [1, 2], "bad": pl.Series([object(), object()], dtype=pl.Object)})
    refused("'bad'", fitted, objects)
    refused(("X", "Polars"), fitted, pl.Series(X[:, 0]))
    fitted(pl.DataFrame({"a": pl.Series(X[:, 0], dtype=pl.Float16), "b": X[:, 1]}))


# ------------------------------------------------------------------------------- indices of pandas


def filtered(name: str | None = None) -> pd.DataFrame:
    """A frame whose index skips rows."""
    frame = pd.DataFrame(NAMES)
    frame = frame[frame.a > -1]
    return frame.rename_axis(index=name)


@check("Parquet after a filter has no hidden column")
def _() -> None:
    filtered().to_parquet(FOLDER / "filtered.parquet")
    assert open_source(FOLDER / "filtered.parquet").names == ("a", "b")
    folder = FOLDER / "parts"
    folder.mkdir(exist_ok=True)
    filtered().to_parquet(folder / "1.parquet")
    pd.DataFrame(NAMES).to_parquet(folder / "2.parquet")
    source = open_source(folder)
    assert source.names == ("a", "b")
    assert sum(batch.num_rows for batch in source.batches(source.names)) == len(filtered()) + N
    pd.DataFrame(NAMES).set_index(["a", "b"]).to_parquet(FOLDER / "none.parquet")
    refused(("none.parquet", "column"), open_source, FOLDER / "none.parquet")
    for frame in (
        pq.read_table(FOLDER / "filtered.parquet"),
        pl.read_parquet(FOLDER / "filtered.parquet"),
        pd.read_parquet(FOLDER / "filtered.parquet"),
    ):
        assert to_arrow(frame).column_names == ["a", "b"]
        e = fitted(frame, "error")
        assert e.n_features_in_ == 2
        assert abs(e.score(filtered()) - fitted(filtered()).score(filtered())) < 1e-9


@check("an index with a name is left out and told of")
def _() -> None:
    filtered("id").to_parquet(FOLDER / "named.parquet")
    source = open_source(FOLDER / "named.parquet")
    assert source.names == ("a", "b")
    assert "id" in " ".join(source.notes)
    assert source.known(["id"], "keep") == ("id",)
    assert next(source.batches(["id", "a"])).column_names == ["id", "a"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fitted(pq.read_table(FOLDER / "named.parquet")).n_features_in_ == 2
    assert any("id" in str(one.message) for one in caught)


class Samples(pd.DataFrame):
    """As samplers keep their weights."""

    _metadata = ("x",)

    @property
    def _constructor(self) -> type[Samples]:
        return Samples


@check("weights in an index count")
def _() -> None:
    x = RNG.normal(size=(4000, 1))
    weight = np.exp(-3 * x[:, 0] ** 2)
    index = pd.MultiIndex.from_arrays([range(4000), weight], names=[None, "weights"])
    frame = Samples(x, index=index, columns=["a"])
    got = fitted(frame).sample(4000, random_state=0).to_numpy().std()
    want = fitted(x, sample_weight=weight).sample(4000, random_state=0).std()
    assert abs(got - want) < 1e-9, (got, want)
    assert abs(got - 1 / np.sqrt(7)) < 0.03
    refused(("sample_weight", "index"), fitted, frame, sample_weight=weight)
    e = fitted(frame)
    scores = e.score_samples(frame)
    assert abs(e.score(frame) - np.average(scores, weights=weight)) < 1e-9
    assert isinstance(e.sample(2), pd.DataFrame)


# ------------------------------------------------------------------------------- others' containers


def optional(name: str) -> Any:
    """A module, if it is there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"  ({name} is not installed)")
        return None


if xarray := optional("xarray"):

    @check("xarray")
    def _() -> None:
        plain = xarray.DataArray(X, dims=("row", "feature"))
        named = plain.assign_coords(feature=["a", "b"], row=np.arange(N) * 10)
        for frame, labels in ((plain, [0, 1]), (named, ["a", "b"])):
            e = fitted(frame)
            assert abs(e.score(frame) - WANTED) < 1e-9
            assert list(e.sample(3).columns) == labels
        refused(("X", "xarray"), fitted, plain[:, 0])
        refused(("X", "to_dataframe"), fitted, named.to_dataset(dim="feature"))


if anesthetic := optional("anesthetic"):

    @check("anesthetic")
    def _() -> None:
        weight = np.exp(-3 * X[:, 0] ** 2)
        frame = anesthetic.Samples(X, columns=["a", "b"], labels=["$a$", "$b$"], weights=weight)
        e = fitted(frame)
        want = fitted(X, sample_weight=weight)
        assert np.allclose(e.score_samples(frame), want.score_samples(X))
        assert e.sample(3).columns.equals(frame.columns)


if astropy := optional("astropy.table"):

    @check("astropy")
    def _() -> None:
        fits = importlib.import_module("astropy.io.fits")
        kinds = np.where(X[:, 0] > 0, "u", "v")
        table = astropy.Table({"a": X[:, 0].astype(">f4"), "b": X[:, 1], "kind": kinds})
        table.write(FOLDER / "t.fits", overwrite=True)
        with fits.open(FOLDER / "t.fits") as opened:
            records = opened[1].data
            for frame in (table, records, astropy.Table.read(FOLDER / "t.fits"), table.to_pandas()):
                e = fitted(frame, "error")
                assert [c.kind for c in e.schema_.columns] == ["continuous"] * 2 + ["categorical"]
                assert np.isfinite(e.score(frame))
                e.sample(3)
        hidden = astropy.Table(table, masked=True)
        hidden["a"].mask = HIDDEN[:, 0]
        refused(("'a'", "missing"), fitted, hidden, "error")
        assert fitted(hidden).sample(200, random_state=0)["a"].mask.any()


# -------------------------------------------------------------------------------- failures and size


@check("what is no table is refused in a line")
def _() -> None:
    nested = np.zeros(9, [("a", "f8"), ("pos", "f8", 3)])
    inner = np.zeros(9, [("a", "f8"), ("pos", [("x", "f8")])])
    sparse = importlib.import_module("scipy.sparse")
    cases: list[tuple[Any, str]] = [
        (nested, "'pos'"),
        (inner, "'pos'"),
        (sparse.eye(5).tocsr(), "toarray"),
        (sparse.coo_array(np.eye(5)), "toarray"),
        (X[:, 0], "shape"),
        (X[None], "shape"),
        (None, "X"),
        ("text", "X"),
        (5, "X"),
        ([], "X"),
        ({}, "column"),
        ([[]], "feature"),
        (pd.DataFrame(), "column"),
        (pd.DataFrame({"a": []}), "row"),
        (pd.Series(X[:, 0]), "Series"),
        (pa.table({"a": pa.array([], pa.float64())}), "row"),
        (np.zeros((0, 2)), "sample"),
        ({"a": [1, 2], "b": [1]}, "'b'"),
        ({"a": 5}, "'a'"),
        ({"a": X}, "'a'"),
        ([[1, 2], [3]], "X"),
        (X * 1j, "omplex"),
        (np.zeros((0,), [("a", "f8")]), "row"),
        (torch.zeros(3), "shape"),
        ([{"a": 1}, {"b": "x"}], "missing"),
    ]
    for frame, word in cases:
        refused(word, DensityEstimator("gaussian").fit, frame)
        if frame is not None and word not in ("missing", "feature", "sample"):
            refused("context", fitted, X, context=frame)


@check("a failed fit leaves an estimator as it was")
def _() -> None:
    bad = (np.zeros((0, 2)), np.full((9, 2), np.inf), pd.DataFrame({"a": [1, "x"]}), X[:, 0])
    for frame in bad:
        e = DensityEstimator("gaussian")
        refused((), e.fit, frame)
        refused("not fitted", e.score_samples, X)
        refused("not fitted", e.sample)
        refused("not fitted", e.save, "no.safetensors")
        assert not hasattr(e, "n_features_in_")
        e.fit(pd.DataFrame(NAMES))
        before = e.score(pd.DataFrame(NAMES))
        refused((), e.fit, frame)
        refused((), e.fit, X, context=frame)
        refused((), e.fit, X, sample_weight=np.ones(3))
        assert e.score(pd.DataFrame(NAMES)) == before
        assert list(e.feature_names_in_) == ["a", "b"]


@check("sizes whose squares are no floats are named")
def _() -> None:
    for cell in (1e300, -1e300, 1e160):
        x = X.copy()
        x[3, 1] = cell
        refused("'x1'", fitted, x)
        refused(("context", "'x1'"), fitted, X, context=x)
    for scale in (1e160, 1e300, 1e-200, 1e-300):
        refused("'a'", fitted, pd.DataFrame({"a": X[:, 0] * scale, "b": X[:, 1]}))
    for scale in (1e140, 1e-140):
        assert abs(fitted(X * scale).score(X * scale) + 2 * np.log(scale) - WANTED) < 1e-6


@check("offsets keep their digits")
def _() -> None:
    for offset, scale in ((1.26e9, 300.0), (-4e12, 1.0), (2.45e6, 1e-4)):
        noisy = X[:, :1] + HIDDEN[:, :1]
        c = offset + scale * noisy
        near = fitted(X, context=noisy).score(X, context=noisy)
        for context in (c, pd.DataFrame({"t": c[:, 0]}), c.astype(np.longdouble), c.astype(">f8")):
            assert abs(fitted(X, context=context).score(X, context=context) - near) < 1e-3
        far = offset + scale * X
        assert abs(fitted(far).score(far) + 2 * np.log(scale) - WANTED) < 1e-3


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(tell(each(asked(__doc__).of(CHECKS))))
