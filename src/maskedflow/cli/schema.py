"""``maskedflow schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .csv import CsvOptions, Table, opened
from .output import check_ending, note


def schema(
    file: Table,
    /,
    *,
    schema: Path | None = None,
    missing: Literal["error", "drop", "model"] | None = None,
    output: Annotated[Path | None, Parameter(name=["-o", "--output"])] = None,
    csv: CsvOptions | None = None,
) -> None:
    """Tell what each column of a table is taken for, and why.

    Write it to a file with -o, correct it, and give it to maskedflow train --schema.

    Args:
        file: The table, in a file of any kind that train reads, or a folder of .parquet files; - is
            standard input.
        schema: TOML file with what is known of the columns; the rest is inferred.
        missing: What becomes of missing values: error, drop or model.
        output: TOML file to write.
        csv: How CSV files are written.
    """
    check_ending(output, ".toml")

    from maskedflow.data import infer_schema
    from maskedflow.data.mixed import names_noticed
    from maskedflow.files import write_text

    found = infer_schema(opened(file, csv), schema, missing)
    print(found)
    for one in names_noticed(found):
        note(one)
    gaps = [column.name for column in found.columns if column.missing]
    if gaps and found.missing == "error":
        note(
            f"{', '.join(gaps)} may be missing, which train refuses without "
            "--missing drop or --missing model"
        )
    if output is not None:
        write_text(output, found.to_toml())
        print(f"schema in {output}")
