"""Arrays, chains and results in files: what is a column, what lies beside, and where they end."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import SMALL, call, run
from maskedflow import data, load_run
from maskedflow.columns import Schema
from maskedflow.sources import open_source, write_table
from maskedflow.transforms import Bounds


def cells(path: Path | str) -> dict[str, list[Any]]:
    source = open_source(path)
    return source.table([*source.names, *source.index]).to_pydict()


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("kind", [">f4", "<f8", ">i2", "u1", "f2", "longdouble"])
def test_a_matrix_has_numbered_columns(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6).reshape(3, 2).astype(kind))
    source = open_source(tmp_path / "x.npy")
    assert cells(tmp_path / "x.npy") == {"x0": [0, 2, 4], "x1": [1, 3, 5]}
    native = np.dtype("f8" if kind == "longdouble" else kind).newbyteorder("=")
    assert source.types(["x0"]).field(0).type.to_pandas_dtype() == native


def test_records_have_columns_of_every_kind(tmp_path: Path) -> None:
    kinds = [("n", ">i4"), ("s", "S2"), ("t", "U3"), ("b", "?"), ("d", "M8[D]"), ("v", "f4", (2,))]
    rows = [
        (1, b"a", "\u00fc", True, "2024-01-02", (1, 2)),
        (2, b"", "", False, "NaT", (3, np.nan)),
    ]
    np.save(tmp_path / "r.npy", np.array(rows, kinds))
    found = cells(tmp_path / "r.npy")
    days = [None if day is None else str(day) for day in found.pop("d")]
    assert days == ["2024-01-02", None]
    assert found == {
        "n": [1, 2],
        "s": ["a", ""],
        "t": ["\u00fc", ""],
        "b": [True, False],
        "v[0]": [1.0, 3.0],
        "v[1]": [2.0, None],
    }


def test_vectors_of_an_archive_are_columns(tmp_path: Path) -> None:
    theta, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    np.savez_compressed(tmp_path / "pairs.npz", theta=theta, y=y)
    assert open_source(tmp_path / "pairs.npz").names == ("theta[0]", "theta[1]", "y")
    np.savez(tmp_path / "parts.npz", train=theta, test=theta[:2])
    message = r"found train \(3, 2\), test \(2, 2\); choose one by parts.npz::NAME"
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "parts.npz")
    assert cells(f"{tmp_path / 'parts.npz'}::test") == {"x0": [0.0, 2.0], "x1": [1.0, 3.0]}


def test_blocks_of_an_array_begin_at_any_row(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(20.0).reshape(10, 2))
    batches = list(open_source(tmp_path / "x.npy").batches(["x1"], rows=3, first=2, last=7))
    assert [batch.column(0).to_pylist() for batch in batches] == [[5, 7, 9], [11, 13]]


def _npy(header: str, content: bytes = b"") -> bytes:
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content


class Bomb:
    """What fails the test that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("unpickled",)


def _archive(member: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
    return file.getvalue()


OBJECTS = _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps(Bomb()))
LIE = _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3)}")

COMPLEX = _npy("{'descr': '<c16', 'fortran_order': False, 'shape': (1, 1)}", bytes(16))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("objects.npy", OBJECTS, "cannot be read as an array of NumPy's"),
        ("lie.npy", LIE, "cannot be read as an array of NumPy's"),
        ("complex.npy", COMPLEX, "expected at least one column of numbers or text"),
        ("text.npy", b"hello", "cannot be read as an array of NumPy's"),
        ("objects.npz", _archive(OBJECTS), "'x.npy' holds objects of Python's"),
        ("lie.npz", _archive(LIE), "'x.npy' announces more numbers than there are"),
        ("bomb.npz", _archive(bytes(2**21)), "cannot be read as an archive of NumPy's"),
        ("text.npz", b"hello", "cannot be read as an archive of NumPy's"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("other.json", b'{"a": [1, 2]}', "expected a result of bilby's"),
        ("list.json", b"[1, 2]", "expected a result of bilby's"),
        ("bare.txt", b"1 2 3\n", "expected a chain of GetDist's, with names in bare.paramnames"),
        ("words.txt", b"# weight minuslogpost a\n1 2 x\n", "cannot be read as a chain"),
        ("ragged.txt", b"# weight minuslogpost a\n1 2 3\n1 2\n", "cannot be read as a chain"),
        ("wide.txt", b"# weight minuslogpost a\n1 2 3 4\n", "expected 3 numbers a row"),
        ("none.txt", b"# weight minuslogpost a\n", "expected at least one row"),
        ("a.xlsx", b"", r"expected a file ending in .csv, .tsv, .parquet, .txt, .npy, .*\.nc"),
    ],
)
def test_what_is_no_table_is_told_in_one_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_source(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("t.fits", "astropy.io.fits", "fits"), ("t.h5", "h5py", "hdf5"), ("t.nc", "h5py", "hdf5")],
)
def test_what_to_install_is_said(
    name: str,
    library: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    path = tmp_path / name
    path.write_bytes(b"")
    code, _, told = call(capsys, "train", "--data", path)
    assert code == 2
    assert told.endswith(f"needs {library.partition('.')[0]}; pip install 'maskedflow[{extra}]'\n")


# ---------------------------------------------------------------- chains and results


@pytest.fixture
def chain(rng: np.random.Generator, tmp_path: Path) -> Path:
    """A chain of GetDist's: one parameter on an interval, one above 0, one of the line."""
    x = np.stack([rng.beta(0.5, 3, 400), rng.gamma(2, 1, 400), rng.normal(size=400)], axis=1)
    rows = [rng.uniform(1, 2, 400), rng.normal(size=400), *x.T, x.sum(axis=1)]
    np.savetxt(tmp_path / "chain.txt", np.stack(rows, axis=1))
    names = "omegam \\Omega_m\ntau \\tau\nh h\ntotal* t\n"
    (tmp_path / "chain.paramnames").write_text(names)
    (tmp_path / "chain.ranges").write_text("omegam 0.0 1.0\ntau 0 N\nh N N\ntotal* 0 5\n")
    return tmp_path / "chain.txt"


def test_a_chain_has_parameters_weights_and_bounds(chain: Path) -> None:
    source = open_source(chain)
    assert source.names == ("omegam", "tau", "h")
    assert source.index == ("weight", "minuslogpost", "total")
    assert source.weights == "weight"
    assert source.bounds == {"omegam": (0, 1), "tau": (0, np.inf)}
    assert "derived from the others are left out" in source.notes[0]
    rows = np.loadtxt(chain)
    found = cells(chain)
    np.testing.assert_array_equal(
        np.stack([found[name] for name in (*source.index[:2], *source.names, "total")], axis=1),
        rows,
    )
    assert data.read_table(chain, ["total", "weight"]).shape == (400, 2)


def test_parts_of_a_chain_are_one_table_by_its_root(chain: Path) -> None:
    rows = np.loadtxt(chain)
    chain.unlink()
    for number in (2, 10, 1):
        np.savetxt(chain.with_name(f"chain_{number}.txt"), rows[: 5 * number])
    for root in (chain, chain.with_suffix("")):
        source = open_source(root)
        assert source.count() == 65
        first = source.table(["omegam"])["omegam"].to_pylist()
        assert first[5:10] == rows[:5, 2].tolist()  # of the second part
    assert open_source(chain.with_name("chain_2.txt")).bounds["omegam"] == (0, 1)


def test_names_of_a_chain_are_in_its_first_line(tmp_path: Path) -> None:
    head = "#   weight  minuslogpost   a   b  minuslogprior  chi2  chi2__like\n"
    (tmp_path / "run.1.txt").write_text(head + "2 1.5 0.1 0.2 1 1 1\n1 2.5 0.3 0.4 1 1 1\n")
    source = open_source(tmp_path / "run")
    assert source.names == ("a", "b")
    assert set(source.index) == {"weight", "minuslogpost", "minuslogprior", "chi2", "chi2__like"}
    assert cells(tmp_path / "run")["a"] == [0.1, 0.3]


def test_bad_ranges_are_told_by_their_line(chain: Path) -> None:
    for text in ("tau 1 0", "tau 0", "tau zero one"):
        chain.with_suffix(".ranges").write_text(f"omegam 0 1\n{text}\n")
        with pytest.raises(ValueError, match=f"chain.ranges: line 2: expected .* found '{text}'"):
            open_source(chain)


@pytest.fixture
def result(rng: np.random.Generator, tmp_path: Path) -> Path:
    """A result of bilby's."""
    posterior = {"b": rng.normal(size=300), "a": rng.uniform(2, 3, 300), "log_prior": np.zeros(300)}
    content = {name: x.tolist() for name, x in posterior.items()}
    text = json.dumps(
        {
            "label": "event",
            "posterior": {"__dataframe__": True, "content": content},
            "search_parameter_keys": ["a", "b"],
            "priors": {
                "__prior_dict__": True,
                "a": {"__prior__": True, "kwargs": {"minimum": 2, "maximum": 3.5}},
                "b": {"__module__": "os", "__name__": "system", "kwargs": {"minimum": "exit()"}},
            },
        }
    )
    (tmp_path / "result.json").write_text(text)
    return tmp_path / "result.json"


def test_a_result_has_what_was_sampled_and_bounds(result: Path) -> None:
    source = open_source(result)
    assert source.names == ("a", "b")
    assert source.index == ("log_prior",)
    assert source.bounds == {"a": (2, 3.5)}
    posterior = json.loads(result.read_text())["posterior"]["content"]
    assert cells(result) == posterior


def test_logs_of_a_result_without_keys_are_beside(result: Path) -> None:
    told = json.loads(result.read_text())
    told.pop("search_parameter_keys")
    result.write_text(json.dumps(told))
    assert open_source(result).names == ("b", "a")
    assert open_source(result).index == ("log_prior",)


def test_bytes_that_are_no_text_are_told_in_a_line(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([(b"\xff", 1.0)], [("s", "S2"), ("x", "f8")]))
    with pytest.raises(ValueError, match=r"s\.npy: cannot be read as a table: 'utf-8' codec"):
        cells(tmp_path / "s.npy")


# ---------------------------------------------------------------- bounds


def test_a_flow_stays_within_the_bounds_of_a_file(chain: Path, tmp_path: Path) -> None:
    assert run("train", "--data", chain, "--out", tmp_path / "runs", *SMALL) == 0
    fitted = load_run(tmp_path / "runs" / "chain")
    assert fitted.config.flow is not None
    assert fitted.config.flow.preprocessing[0] == {
        "kind": "Bounds",
        "low": [0.0, 0.0, -np.inf],
        "high": [1.0, np.inf, np.inf],
    }
    x = fitted.flow().sample((2000,))
    assert 0 < x[:, 0].min() < x[:, 0].max() < 1
    assert x[:, 1].min() > 0
    outside = torch.tensor([[1.5, 1.0, 0.0], [0.5, -0.1, 0.0], [0.5, 1.0, -9.0]])
    assert fitted.flow().log_prob(outside).isfinite().tolist() == [False, False, True]
    assert run("score", tmp_path / "runs" / "chain", chain, "-o", tmp_path / "s.csv") == 0
    mean = data.read_table(tmp_path / "s.csv").mean().item()
    log_prob = fitted.flow().log_prob(data.read_table(chain, fitted.columns))
    assert mean == pytest.approx(log_prob.mean().item(), rel=1e-5)


def test_runs_of_other_weights_are_compared_by_the_same(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.loadtxt(chain)
    rows[:, 1] = abs(rows[:, 1])
    np.savetxt(chain, rows)
    names = "weight", "minuslogpost"
    for name in names:
        words = "train", "--data", chain, "--weights", name, "--out", tmp_path / name
        assert run(*words, *SMALL) == 0
    both = [tmp_path / name / "chain" for name in names]
    code, _, err = call(capsys, "compare", *both)
    assert (code, "its weights is minuslogpost" in err) == (2, True)
    code, out, _ = call(capsys, "compare", *both, "--weights", "minuslogpost")
    test = load_run(both[1]).dataset().test
    assert (code, f"effective sample size: {test.effective:.1f} of 40 " in out) == (0, True)


def test_a_density_within_bounds_integrates_to_one(chain: Path) -> None:
    opened = data.open_table(chain)
    front = opened.preprocessing()
    assert front is not None
    assert isinstance(front.transforms[0], Bounds)
    y = data.Split(front()(opened.train.x), weight=opened.train.weight)
    mean, scale = y.moments
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scale, torch.ones(3), atol=5e-3, rtol=0)
    # Of one feature at a time: the base density pulled back over a fine grid of the interval.
    grid = torch.linspace(0, 1, 200_001)[1:-1].double()
    x = opened.train.x[:1].double().repeat(len(grid), 1)
    x[:, 0] = grid
    z, ladj = front.double()().call_and_ladj(x)
    others = front().call_and_ladj(x[:1])[1] - _slope(front, x[:1])
    density = (torch.distributions.Normal(0, 1).log_prob(z[:, 0]) + ladj - others).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=0.01)


def _slope(front: Any, x: torch.Tensor) -> torch.Tensor:
    """The log-slope of the first feature's map."""
    first = x[0].clone()
    jacobian = torch.autograd.functional.jacobian(front(), first)
    return jacobian[0, 0].log()


def test_streamed_rows_have_the_same_bounds(result: Path) -> None:
    streamed = data.open_streamed(result)
    assert streamed.bounds == {"a": (2, 3.5)}
    assert streamed.preprocessing() is not None


def test_a_row_that_float32_rounds_to_a_bound_keeps_its_digits(chain: Path) -> None:
    rows = np.loadtxt(chain)
    rows[7, 2] = 1 - 1e-10
    np.savetxt(chain, rows)
    opened = data.open_table(chain)
    assert opened.train.x.dtype == torch.float64
    front = opened.preprocessing()
    assert front is not None
    assert front()(torch.from_numpy(rows[:, 2:5])).isfinite().all()


@pytest.mark.parametrize("value", [1.0, 1.25, -0.5])
def test_rows_at_or_beyond_a_bound_are_refused(
    value: float, chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.loadtxt(chain)
    rows[7, 2] = value
    np.savetxt(chain, rows)
    code, _, told = call(capsys, "train", "--data", chain, "--flow", "maf")
    assert code == 2
    assert "column 'omegam': expected numbers above 0 and below 1, where its prior ends" in told
    assert f"found {value:g}" in told


def test_values_on_a_grid_need_no_bounds(rng: np.random.Generator, chain: Path) -> None:
    rows = np.loadtxt(chain)
    rows[:, 2] = rng.integers(0, 2, 400)
    np.savetxt(chain, rows)
    opened = data.open_table(chain)
    assert opened.cells is not None
    assert opened.bounds == {"tau": (0, np.inf)}


def test_a_schema_has_the_bounds_and_says_why(chain: Path, tmp_path: Path) -> None:
    omegam, tau, h = data.infer_schema(chain).columns
    assert (omegam.kind, omegam.low, omegam.high) == ("bounded", 0, 1)
    assert (tau.kind, tau.low, tau.high) == ("positive", 0, None)
    assert (h.kind, h.low) == ("continuous", None)
    assert omegam.note == "bounds of the prior, from the file"
    declared = tmp_path / "known.toml"
    declared.write_text('[columns.omegam]\nkind = "continuous"\n')
    assert data.infer_schema(chain, declared).columns[0].note == "declared"
    assert isinstance(data.open_mixed(chain).schema, Schema)
    assert data.open_mixed(chain).schema.columns[0] == omegam


# ---------------------------------------------------------------- anesthetic


@pytest.mark.parametrize("labels", [True, False])
def test_samples_of_anesthetic_have_weights(labels: bool, tmp_path: Path) -> None:
    heading = ',,a,b,logL,nlive\nlabels,,$a$,"$b, c$",L,n\n,weights,,,,\n'
    text = heading if labels else ",weights,a,b,logL,nlive\n"
    (tmp_path / "ns.csv").write_text(text + "0,0.5,1.5,2.5,-3,9\n1,1.0,-1.5,0.5,-2,8\n")
    source = open_source(tmp_path / "ns.csv")
    assert source.names == ("a", "b")
    assert source.index == ("weights", "logL", "nlive")
    assert source.weights == "weights"
    assert source.count() == 2
    assert cells(tmp_path / "ns.csv")["weights"] == [0.5, 1.0]
    (last,) = source.batches(["b"], first=1)
    assert last.column(0).to_pylist() == ["0.5"]


def test_a_bad_cell_of_samples_is_told_by_its_row(tmp_path: Path) -> None:
    heading = ",,a,b\nlabels,,$a$,$b$\n,weights,,\n"
    (tmp_path / "ns.csv").write_text(heading + 30 * "0,0.5,1.5,2.5\n" + "1,1.0,oops,0.5\n")
    with pytest.raises(ValueError, match="column 'a', row 31: expected a number, found 'oops'"):
        data.read_table(tmp_path / "ns.csv")


# ---------------------------------------------------------------- an array, end to end


def test_a_run_on_an_array_is_as_one_on_the_same_csv(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    x = rng.normal(size=(200, 2)).astype(np.float32)
    named = np.rec.fromarrays(x.T, names="a,b")
    np.save(tmp_path / "records.npy", named)
    write_table(tmp_path / "table.csv", ["a", "b"], [torch.from_numpy(x)])
    scores = []
    for name in ("records.npy", "table.csv"):
        out = tmp_path / name.replace(".", "_")
        assert run("train", "--data", tmp_path / name, "--out", out, *SMALL) == 0
        (directory,) = out.iterdir()
        for shard in ("1/2", "2/2"):
            file = out / f"{shard[0]}.parquet"
            options = ("--shard", shard, "--keep", "b")
            assert run("score", directory, tmp_path / name, "-o", file, *options) == 0
        scores.append(data.read_table(out / "2.parquet"))
        assert run("evaluate", directory) == 0
    assert torch.equal(*scores)
