"""``maskedflow schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .output import check_ending, note


def schema(
    file: Path,
    /,
    *,
    schema: Path | None = None,
    missing: Literal["error", "drop", "model"] | None = None,
    output: Annotated[Path | None, Parameter(name=["-o", "--output"])] = None,
) -> None:
    """Tell what each column of a table is taken for, and why.

    Write it to a file with -o, correct it, and give it to maskedflow train --schema.

    Args:
        file: The table, in a file of any kind that train reads, or a folder of .parquet files.
        schema: TOML file with what is known of the columns; the rest is inferred.
        missing: What becomes of missing values: error, drop or model.
        output: TOML file to write.
    """
    check_ending(output, ".toml")

    from maskedflow.data import infer_schema
    from maskedflow.data.mixed import names_noticed
    from maskedflow.files import write_text
    from maskedflow.sources import open_source

    found = infer_schema(file, schema, missing)
    print(found)
    for one in (*open_source(file).notes, *names_noticed(found)):
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
