"""The service of the page on serving, over HTTP."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import maskedflow as mf
from page_code import run_python, type_commands, write_people

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
# FastAPI's own affair with the next httpx.
pytestmark = pytest.mark.filterwarnings("ignore:.*httpx.*")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains by the page's command, serves by its command, and asks by its Python."""
    monkeypatch.chdir(tmp_path)
    write_people()
    type_commands("serving.md")
    (line,) = re.findall(r"^\$ (RUN=.*uvicorn.*)$", PAGE, re.MULTILINE)
    words = shlex.split(line.replace("examples/", f"{ROOT}/examples/"))
    given = dict(word.split("=") for word in words if re.fullmatch(r"[A-Z_]+=\S+", word))
    command = words[words.index("uvicorn") :]
    service = subprocess.Popen([sys.executable, "-m", *command], env=os.environ | given)
    try:
        wait_for("http://127.0.0.1:8765/health", service)
        names = run_python("serving.md")
    finally:
        service.terminate()
        service.wait()
    rows = names["drawn"]["rows"]
    density = mf.load_run("maf_results/people").density
    x = torch.tensor([[30.0, 171.0], *([row["age"], row["height"]] for row in rows)])
    torch.testing.assert_close(names["scores"]["log_prob"], density.log_prob(x).tolist())


def wait_for(address: str, service: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert service.poll() is None
        try:
            urllib.request.urlopen(address)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{address} does not answer")


@pytest.fixture(params=["flow_numbers", "estimator_mixed"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    monkeypatch.syspath_prepend(ROOT / "examples" / "serving")
    import service

    with TestClient(service.create(str(ROOT / "tests" / "golden" / request.param))) as client:
        client.run = mf.load_run(ROOT / "tests" / "golden" / request.param)
        yield client


def drawn(client: Any, n: int) -> list[dict[str, Any]]:
    """Rows that a run has drawn, with contexts if it has some."""
    given = list(client.run.context_columns)
    table = pq.read_table(ROOT / "tests" / "golden" / "mixed.parquet")
    contexts = table.select(given).slice(0, n).to_pylist() if given else []
    answer = client.post("/sample", json={"context": contexts} if contexts else {"n": n})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    return [row | c for row, c in zip(rows, contexts or [{}] * n, strict=True)]


def test_samples_are_scored_together_as_one_by_one(client: Any) -> None:
    rows = drawn(client, 3)
    together = client.post("/score", json={"rows": rows}).json()["log_prob"]
    alone = [client.post("/score", json={"rows": [row]}).json()["log_prob"][0] for row in rows]
    assert len(together) == 3
    torch.testing.assert_close(together, alone)
    assert all(isinstance(value, float) for value in alone)
    metrics = client.get("/metrics").text
    assert 'requests_total{path="/score",status="200"} 4' in metrics
    assert "scored_rows_total 6" in metrics
    assert client.get("/health").json()["run"] == client.run.name


def test_what_does_not_fit_is_refused_in_one_line(client: Any) -> None:
    (row,) = drawn(client, 1)
    name = next(iter(row))
    for body, line in {
        "no rows": ({"rows": []}, "rows: List should have at least 1 item"),
        "an unknown column": ({"rows": [{**row, "zz": 1}]}, "rows.0.zz: Extra inputs"),
        "a text": ({"rows": [{**row, name: "q"}]}, f"rows.0.{name}: Input should be"),
        "no columns": ({"rows": [{}]}, ": Field required"),
    }.values():
        answer = client.post("/score", json=body)
        if body["rows"] == [{}] and answer.status_code == 200:
            continue  # a run that models missing cells
        assert answer.status_code == 422
        assert line in answer.json()["detail"]
        assert "\n" not in answer.json()["detail"]
