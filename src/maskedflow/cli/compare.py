"""``maskedflow compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .output import check_ending, print_table, tell_effective, tell_seen

if TYPE_CHECKING:
    from maskedflow.runs import Compared

HEADINGS = (
    *("run", "NLL (nats)", "bits per dimension", "behind the best (nats)"),
    *("parameters", "training", "scoring 1,000 rows"),
)


def compare(
    *runs: Path,
    output: Annotated[Path | None, Parameter(name=["-o", "--output"])] = None,
    weights: str | None = None,
    data_dir: Path | None = None,
) -> None:
    """Score the same test rows with several runs, and print them side by side, the best first.

    ± is two standard errors. Differences are paired, row by row.

    Args:
        runs: The runs' folders.
        output: Markdown file to write the table to, .md, and a picture beside it, .png.
        weights: Column that says how much each test row counts. [default: as in training]
        data_dir: Where data sets lie, if not where the first run found them.
    """
    check_ending(output, ".md")

    from maskedflow.runs import compare_runs, load_run

    if len(runs) < 2:
        raise ValueError(f"RUN: expected at least two runs to compare, got {len(runs)}")
    loaded = [load_run(path) for path in runs]
    found = compare_runs(loaded, data_dir=data_dir, weights=weights)
    for one in found:
        tell_seen(one.seen, one.name)
    tell_effective(found[0].effective, found[0].rows)
    print_table(HEADINGS, HEADINGS[1:], map(_cells, found))
    if output is not None:
        _write(output, found)
        print(f"table in {output}, picture in {output.with_suffix('.png')}")


def _cells(one: Compared) -> tuple[str, ...]:
    return (
        one.name,
        str(one.nll),
        str(one.bpd),
        "" if one.behind is None else str(one.behind),
        f"{one.parameters:,}",
        "" if one.training is None else f"{one.training:.0f} s",
        f"{one.scoring:.2g} s" if one.scoring >= 0.1 else f"{1000 * one.scoring:.2g} ms",
    )


def _write(path: Path, found: list[Compared]) -> None:
    """The table as Markdown, and the picture."""
    from maskedflow.files import write_text
    from maskedflow.report import comparison_picture, save

    picture = path.with_suffix(".png")
    save(comparison_picture(found), picture)
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *map(_cells, found)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    write_text(
        path, f"{text}\n\n![NLL of each run, and its distance from the best]({picture.name})\n"
    )
