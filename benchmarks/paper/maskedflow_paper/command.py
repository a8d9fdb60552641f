"""``maskedflow reproduce``."""

import sys
from pathlib import Path
from typing import Annotated, Literal, cast

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

__all__ = ["reproduce"]


def reproduce(
    table: Annotated[str, Parameter(show_default=False)],
    /,
    *,
    model: str | None = None,
    recipe: Literal["paper", "fast"] = "fast",
    conditional: bool = False,
    seed: NonNegativeInt = 0,
    data_dir: Path | None = None,
    out: Path = Path("maf_results"),
    results: Path = Path("results"),
    device: Literal["auto", "cpu", "cuda", "mps"] = "cpu",
) -> None:
    """Make rows of the MAF paper's tables, and print them beside the published ones.

    A finished row is read from RESULTS/DATASET/MODEL.json; an interrupted one goes on.

    Args:
        table: power, gas, hepmass, miniboone, bsds300, mnist, cifar10, or all that are here.
        model: Rows, separated by commas: gaussian, made, made-mog, realnvp-5, realnvp-10, maf-5,
            maf-10, maf-mog-5, glow, modern, or symmetrized: modern averaged over what mirrors and
            turns a patch, or stack: a mixture of those in OUT. [default: all]
        recipe: paper, its protocol to the letter, or fast, the same models and data with another
            optimisation. [default: fast]
        conditional: Give the class label of an image in training.
        seed: Seed of every random draw. [default: 0]
        data_dir: Where data sets lie. [default: $MASKEDFLOW_DATA, then the user's cache]
        out: Directory of all runs. [default: maf_results]
        results: Directory of all results. [default: results]
        device: Where flows are trained and measured. [default: cpu]
    """
    from maskedflow_paper.rows import CELLED, DATASETS, IMAGES, models_of, row

    chosen = None if model is None else tuple(name.strip() for name in model.split(","))
    tables = (table,) if table != "all" else IMAGES if conditional else DATASETS
    rows = [
        [
            row(name, one, recipe, conditional=conditional)
            for one in (models_of(name) if chosen is None else chosen)
        ]
        for name in tables
    ]

    from maskedflow import data
    from maskedflow.data.benchmarks import power_cells
    from maskedflow_paper.reproduction import markdown_table, reproduce

    found = []
    for name, some in zip(tables, rows, strict=True):
        if table == "all" and data.describe(name, data_dir).folder is None:
            print(
                f"note: {name} is not here; maskedflow datasets tells where it is", file=sys.stderr
            )
            continue
        dataset = data.load(name, data_dir, labels=conditional)
        cells, celled = None, [model for of, model in CELLED if of == name]
        if celled and any(one.model in (*celled, "stack") for one in some):
            cells = power_cells(cast(Path, data.describe(name, data_dir).folder))
        for one in some:
            print(f"{name} {one.name}", file=sys.stderr, flush=True)
            found.append(
                reproduce(one, dataset, out, results, cells=cells, seed=seed, device=device)
            )
    print(markdown_table(found))
