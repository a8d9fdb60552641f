"""Exported flows run in onnxruntime, and give the flows' own numbers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

import maskedflow as mf
from maskedflow.recipes import RECIPES
from page_code import run_python, type_commands, write_people

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text("utf-8")
TABLE = runpy.run_path(str(ROOT / "benchmarks" / "export_table.py"))

# torch's own: its exporter copies what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_table_says_what_can_be_exported(name: str) -> None:
    assert f"| {' | '.join(TABLE['row'](name))} |" in PAGE.splitlines()


@pytest.mark.parametrize("what", ["log_prob", "sample"])
def test_a_program_takes_any_number_of_rows(what: str, tmp_path: Path) -> None:
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    flow = mf.flows.MAF(3, context=2, transforms=2, hidden_features=(16,), generator=generator)
    mf.interop.export(flow, tmp_path / "flow.onnx", what)  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["flow.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "flow.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["what"] == what
    assert facts.get("latent") == ("normal" if what == "sample" else None)
    for rows in (1, 50):
        x, c = (torch.randn(rows, n, generator=generator) for n in (3, 2))
        first = session.get_inputs()[0].name
        found = [torch.from_numpy(y) for y in session.run(None, {first: x.numpy(), "c": c.numpy()})]
        density = flow(c)
        if what == "sample":
            torch.testing.assert_close(found[0], density.transform.inv(x), atol=1e-5, rtol=0)
            x = found[0]
        torch.testing.assert_close(found[-1], density.log_prob(x), atol=1e-5, rtol=0)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_people()
    type_commands("export.md")
    names = run_python("export.md")
    density = names["mf"].load_run("maf_results/people").flow
    x = torch.from_numpy(names["x"])
    torch.testing.assert_close(
        torch.from_numpy(names["log_prob"]), density().log_prob(x), atol=1e-5, rtol=1e-5
    )
    assert json.loads(names["facts"]["columns"]) == ["age", "height"]
