"""A search that is killed, or interrupted, goes on with what it has fitted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from commands import call, files, run, write_csv
from maskedflow.runs import load_run
from maskedflow.tables import FittedTable
from maskedflow.tables.checkpoints import Checkpoints
from maskedflow.tables.flow_training import FlowTraining

FEW = "--flow maf --missing error --work 0.2".split()  # noqa: SIM905
SEARCH = {"config.toml", "estimator.safetensors", "results_summary.txt", "schema.toml"}
SEARCH |= {"samples/t_samples.csv"}


def rows(n: int = 100) -> pa.Table:
    """Two numbers, an angle and a category that hang together."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    return pa.table(
        {
            "a": a,
            "b": a**2 + 0.3 * rng.normal(size=n),
            "wind": (180 + 60 * a + 20 * rng.normal(size=n)) % 360,
            "kind": np.where(a + rng.normal(size=n) > 0, "u", "v"),
        }
    )


def fit(directory: Path | None, **options: Any) -> FittedTable:
    known = {"wind": {"kind": "angle", "period": 360}}
    return FittedTable.fit(
        rows(), schema=known, directory=directory, **{"flow": "maf", "work": 0.3, **options}
    )


def same(one: FittedTable, other: FittedTable) -> bool:
    """Whether two densities have the same bits."""
    ours, theirs = one.density.state_dict(), other.density.state_dict()
    plans = one.density.plan, other.density.plan
    alike = all(ours[name].equal(theirs[name]) for name in ours)
    return plans[0] == plans[1] and ours.keys() == theirs.keys() and alike


def stop_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Makes a search fail after so many steps."""
    once, left = Checkpoints.once, iter(range(steps))

    def call_once(self: Checkpoints, name: str, do: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("killed")
        return once(self, name, do)

    patch.setattr(Checkpoints, "once", call_once)


def test_a_search_goes_on_where_it_was_to_the_last_bit(tmp_path: Path) -> None:
    whole = fit(None)
    taken = list[str]()
    for steps in (3, 100):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(steps, patch)
            if steps < 100:
                with pytest.raises(RuntimeError, match="killed"):
                    fit(tmp_path)
            else:
                assert same(fit(tmp_path), whole)
        now = [path.name for path in tmp_path.glob("*.safetensors")]
        assert set(taken) < set(now)
        taken = now
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert same(fit(tmp_path), whole)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 5100])
def test_every_kind_goes_on_to_the_last_bit(n: int, tmp_path: Path) -> None:
    table = pa.concat_tables([rows(5000), rows(100)]) if n > 5000 else rows(n)
    whole = FittedTable.fit(table, work=1.5, directory=tmp_path)
    every = sorted(tmp_path.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    for path in every[len(every) // 2 :]:
        path.unlink()
    assert same(FittedTable.fit(table, work=1.5, directory=tmp_path), whole)


def test_the_work_is_settled_once(tmp_path: Path) -> None:
    first = fit(tmp_path, work=None, time_limit=0.05).density.plan["work"]
    again = fit(tmp_path, work=None, time_limit=1000.0)
    assert again.density.plan["work"] == first
    with pytest.raises(ValueError, match=r"^work: the search in .* was begun with .*, got 50$"):
        fit(tmp_path, work=50.0)


def test_what_is_of_another_search_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, flow="gaussian")
    with pytest.raises(ValueError, match="the search there is of other rows, another schema, flow"):
        fit(tmp_path, flow="gaussian", seed=1)
    gaussian = tmp_path / "Gaussian.safetensors"
    gaussian.write_bytes((tmp_path / "categories.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"Gaussian.safetensors: not a step of this search"):
        fit(tmp_path, flow="gaussian")
    gaussian.write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"Gaussian.safetensors: not a safetensors file"):
        fit(tmp_path, flow="gaussian")
    (tmp_path / "search.json").write_text('{"work": 0.3}')
    with pytest.raises(ValueError, match=r"search.json: not the record of a search: identity"):
        fit(tmp_path, flow="gaussian")


def test_an_interrupted_run_goes_on_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "t.csv", ["a", "b"], np.stack(rows().columns[:2], axis=1))
    words = ("train", "--data", data, *FEW)
    assert run(*words, "--out", tmp_path / "whole") == 0

    def interrupt(self: FlowTraining) -> float:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlowTraining, "turn", interrupt)
        code, _, err = call(capsys, *words, "--out", tmp_path / "again")
    assert (code, err.count("interrupted")) == (0, 1)
    kept = files(tmp_path / "again" / "t") - SEARCH
    assert kept == {"members/search.json", "members/Gaussian.safetensors"}
    code, _, err = call(capsys, "train", "--data", data, "--out", tmp_path / "again", "--resume")
    assert (code, "interrupted" in err) == (0, False)
    assert files(tmp_path / "again" / "t") == files(tmp_path / "whole" / "t") == SEARCH
    runs = [load_run(tmp_path / name / "t").density for name in ("whole", "again")]
    assert all(isinstance(density, FittedTable) for density in runs)
    assert same(*runs)  # type: ignore[arg-type]
    # One that came to its end is opened.
    with pytest.MonkeyPatch.context() as patch:
        stop_after(0, patch)
        assert run("train", "--data", data, "--out", tmp_path / "again", "--resume") == 0
    more = ("--out", tmp_path / "again", "--resume", "--work", "9")
    code, _, err = call(capsys, "train", "--data", data, *more)
    assert (code, err.count("--resume: work is 9.0, but")) == (2, 1)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_its_end(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "t.csv", ["a", "b"], np.stack(rows(400).columns[:2], axis=1))
    words = ["train", "--data", str(data), "--flow", "auto", "--work", "4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "maskedflow", *words, "--out", str(tmp_path / "killed")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    members = tmp_path / "killed" / "t" / "members"
    while len(list(members.glob("*.safetensors"))) < 8:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert json.loads((members / "search.json").read_text())["work"] == 4
    assert run(*words, "--out", tmp_path / "killed", "--resume") == 0
    assert run(*words, "--out", tmp_path / "whole") == 0
    whole, resumed = (load_run(tmp_path / name / "t").density for name in ("whole", "killed"))
    assert same(whole, resumed)  # type: ignore[arg-type]
