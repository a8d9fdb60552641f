"""An estimator takes any container for what it says, and draws rows in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.exceptions import NotFittedError

from maskedflow import DensityEstimator


def normal(n: int = 200) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(0).normal(size=(n, 2)) @ [[1.0, 0.5], [0.0, 1.0]]


def gaussian(X: Any, missing: str = "error", **given: Any) -> DensityEstimator:
    return DensityEstimator("gaussian", missing=missing, work=1).fit(X, **given)


def test_a_mask_means_missing_wherever_a_table_is_taken() -> None:
    x = normal()
    hidden = np.random.default_rng(1).random(x.shape) < 0.2
    masked = np.ma.array(np.where(hidden, -999.0, x), mask=hidden)
    drawn = gaussian(masked, "model").sample(1000, random_state=0)
    assert (drawn[~np.isnan(drawn)] > -10).all()
    assert 0.1 < np.isnan(drawn).mean() < 0.3
    plain = gaussian(x)
    calls: list[tuple[Any, ...]] = [
        (gaussian, masked),
        (plain.score_samples, masked),
        (plain.score_samples_given, masked, [0]),
        (lambda c: gaussian(x, context=c), masked),
        (lambda c: gaussian(x, context=x).score_samples(x, context=c), masked),
    ]
    for call, *arguments in calls:
        with pytest.raises(ValueError, match=r"column 'x0', row .* missing"):
            call(*arguments)
    weight = np.ma.array(np.ones(len(x)), mask=hidden[:, 0])
    with pytest.raises(ValueError, match="sample_weight: expected a weight for each row"):
        gaussian(x, sample_weight=weight)


def test_samples_can_be_joined_with_the_rows_also_after_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 120
    frame = pd.DataFrame(
        {
            0: pd.array(rng.integers(1, 500, n), "Int64"),
            "flag": pd.array(rng.random(n) < 0.5, "boolean"),
            "cut": pd.cut(rng.normal(size=n), [-9, -1, 0, 1, 9]),
            "size": pd.Categorical(rng.choice(["s", "l"], n), ["s", "m", "l"], ordered=True),
            "x": rng.normal(size=n).astype(">f4"),
            "same": pd.Categorical(["u"] * n, ["u", "v"]),
        }
    )
    frame.loc[::7, [0, "flag", "cut"]] = pd.NA
    estimator = gaussian(frame, "model")
    estimator.save(tmp_path / "e.safetensors")
    native = frame.astype({"x": "f4"})
    for one in (estimator, DensityEstimator.load(tmp_path / "e.safetensors")):
        drawn = one.sample(50, random_state=0)
        pd.testing.assert_series_equal(drawn.dtypes, native.dtypes)
        pd.testing.assert_series_equal(pd.concat([native, drawn]).dtypes, native.dtypes)
        assert np.array_equal(one.score_samples(frame), estimator.score_samples(native))


def test_a_type_that_a_schema_tells_is_that_of_samples() -> None:
    known = {"b": {"type": "float"}}
    frame = pd.DataFrame(normal(), columns=["a", "b"])
    drawn = DensityEstimator("gaussian", schema=known).fit(frame).sample(3, random_state=0)
    assert drawn.dtypes.tolist() == [np.float64, np.float32]


def test_records_mappings_and_tensors_come_back_as_what_they_are() -> None:
    x = normal()
    records = np.rec.fromarrays(x.astype(">f8").T, names="a,b")
    drawn = gaussian(records).sample(3, random_state=0)
    assert drawn.dtype == np.dtype([("a", "f8"), ("b", "f8")])
    mapping = gaussian({0: x[:, 0], 1: x[:, 1]}).sample(3, random_state=0)
    assert list(mapping) == [0, 1]
    assert np.array_equal(mapping[0], drawn["a"])
    rows = gaussian([{"a": a, "b": b} for a, b in x.tolist()]).sample(3, random_state=0)
    assert rows[0] == {"a": drawn["a"][0], "b": drawn["b"][0]}
    assert gaussian(torch.tensor(x).bfloat16()).sample(3).dtype == np.float32


def test_no_integer_is_rounded_without_a_word() -> None:
    ids = [2**53 + k for k in range(20)]
    kinds: dict[str, Any] = {
        "int64": np.array(ids),
        "uint64": np.array(ids, np.uint64) * 2**10,
        "objects": [k * 10**20 for k in ids],
        "Int64": pd.array(ids, "Int64"),
        "decimal": pa.array(ids).cast(pa.decimal128(20, 0)),
        "two": [2**53, 2**53 + 1] * 10,
    }
    for values in kinds.values():
        frame = {"fine": np.arange(20.0), "id": values}
        with pytest.raises(ValueError, match=r"'id', row 1: expected an integer below 2\^53"):
            gaussian(frame)
        with pytest.raises(ValueError, match=r"context: .*'id', row 1: expected an integer below"):
            gaussian(normal(20), context=frame)
    text = gaussian({"id": pd.Categorical(ids[:2] * 10), "x": normal(20)[:, 0]})
    assert set(text.sample(20, random_state=0)["id"]) == set(ids[:2])


def test_weights_in_the_index_of_a_frame_count() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 1))
    weight = np.exp(-3 * x[:, 0] ** 2)  # N(0, 1) becomes N(0, 1/7)
    index = pd.MultiIndex.from_arrays([range(2000), weight], names=[None, "weights"])
    frame = pd.DataFrame(x, index, ["a"])
    estimator = gaussian(frame)
    assert abs(estimator.sample(4000, random_state=0)["a"].std() - 7**-0.5) < 0.03
    scores = estimator.score_samples(frame)
    assert np.isclose(estimator.score(frame), np.average(scores, weights=weight))
    with pytest.raises(ValueError, match="sample_weight: expected none, for the index of X"):
        gaussian(frame, sample_weight=weight)


def test_a_failed_fit_leaves_an_estimator_as_it_was() -> None:
    x = normal()
    bad = [x[:0], np.full((9, 2), np.inf), pd.DataFrame({"a": [1, "x"]}), x[:, 0]]
    estimator = DensityEstimator("gaussian")
    for frame in bad:
        with pytest.raises(ValueError, match=r"X|column|0 sample"):
            estimator.fit(frame)
        for call in (estimator.sample, lambda: estimator.score(x)):
            with pytest.raises(NotFittedError):
                call()
    frame = pd.DataFrame(x, columns=["a", "b"])
    scores = estimator.fit(frame).score_samples(frame)
    for other in bad:
        with pytest.raises(ValueError, match=r"X|column|0 sample"):
            estimator.fit(other)
        assert np.array_equal(estimator.score_samples(frame), scores)


@pytest.mark.parametrize("scale", [1e160, 1e300, 1e-200])
def test_numbers_without_a_variance_are_named(scale: float) -> None:
    x = normal() * [1.0, scale]
    with pytest.raises(ValueError, match=r"column 'x1'.*: expected numbers (more|less) than"):
        gaussian(x)
    with pytest.raises(ValueError, match=r"context: column 'x1'.*: expected numbers"):
        gaussian(normal(), context=x)


def test_numbers_far_apart_may_be_near_as_logarithms() -> None:
    x = np.exp(150 * normal()[:, :1])
    estimator = DensityEstimator("gaussian", schema={"x0": {"kind": "positive"}}).fit(x)
    # The density of x is that of its logarithm, over x.
    logs = gaussian(np.log(x)).score(np.log(x))
    assert abs(estimator.score(x) - (logs - np.log(x).mean())) < 1e-6


@pytest.mark.parametrize(("offset", "scale"), [(1.26e9, 300.0), (-4e12, 1.0)])
def test_a_large_offset_keeps_its_digits(offset: float, scale: float) -> None:
    x = normal()
    c = x[:, :1] + np.random.default_rng(1).normal(size=(len(x), 1))
    near = gaussian(x, context=c).score(x, context=c)
    far = offset + scale * c
    assert abs(gaussian(x, context=far).score(x, context=far) - near) < 1e-3
    moved = gaussian(offset + scale * x).score(offset + scale * x) + 2 * np.log(scale)
    assert abs(moved - gaussian(x).score(x)) < 1e-3
