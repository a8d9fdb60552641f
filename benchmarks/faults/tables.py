"""Tables in files as people have them: each is read right, or refused in a line that helps.

Every kind is a small file, a command, and what has to come of it: a word of the result, or of the
one line on standard error. Run `python benchmarks/faults/tables.py`.
"""

from __future__ import annotations

import contextlib
import decimal
import io
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import asked, each, tell

import maskedflow as mf
from maskedflow.cli import main

SMALL = "--hidden_dim 8 --num_layers 1 --epochs 1 --batch_size 200 --no_report".split()  # noqa: SIM905
AUTO = "--time_limit 1 --no_report".split()  # noqa: SIM905

RNG = np.random.default_rng(0)
N = 300
X, K = RNG.normal(size=N), RNG.integers(0, 4, N)


@dataclass(frozen=True)
class Kind:
    """A table and what should come of it.

    Args:
        name: What is special about it.
        content: The file, or the table of a Parquet file.
        code: The exit code of training on it.
        word: What has to be in what is printed.
        options: The options of the command.
    """

    name: str
    content: bytes | str | pa.Table
    code: int
    word: str = ""
    options: tuple[str, ...] = tuple(SMALL)


def lines(header: str, row: str = "{x:.4f},{k}", n: int = N) -> str:
    """A CSV file whose rows are all like this."""
    rows = [row.format(x=x, k=k, i=i) for i, (x, k) in enumerate(zip(X[:n], K[:n], strict=True))]
    return "\n".join([header, *rows]) + "\n"


def spoilt(cell: str, at: int = 17, header: str = "x,k") -> str:
    """Two columns of numbers, with one other cell."""
    rows = lines(header).splitlines()
    rows[at] = f"{cell},1"
    return "\n".join(rows) + "\n"


def parquet(**columns: pa.Array | np.ndarray | list[object]) -> pa.Table:
    """A table with these columns beside one of real numbers."""
    return pa.table({"x": X, **columns})


FLAT = lines("x,k")
NONE = ()
KINDS = [
    Kind("plain", FLAT, 0, "k holds values on a grid"),
    Kind("byte order mark", b"\xef\xbb\xbf" + FLAT.encode(), 0, "features"),
    Kind("windows line ends", FLAT.replace("\n", "\r\n"), 0, "k holds"),
    Kind("semicolons", lines("x;k", "{x:.4f};{k}"), 0, "separated by semicolons"),
    Kind("tabs", lines("x\tk", "{x:.4f}\t{k}"), 0, "separated by tabs"),
    Kind("bars", lines("x|k", "{x:.4f}|{k}"), 0, "separated by bars"),
    Kind("decimal commas", lines("x;k", "{x:.4f};{k}").replace(".", ","), 0, "with commas"),
    Kind("decimal or thousands", lines("x;k", "1,234;{k}"), 2, "row 1: expected a number"),
    Kind("quoted decimal commas", lines("x,k", '"{x:.4f}",{k}').replace(".", ","), 2, "decimal"),
    Kind("thousands", lines("x,k", '"1,{i:03d}",{k}'), 2, "separator of thousands", NONE),
    Kind("thousands, quoted once", spoilt('"1,234"'), 2, "row 17: expected a number", NONE),
    Kind("currency", lines("x,k", "${i},{k}"), 2, "currency sign", NONE),
    Kind("percent", lines("x,k", "{i}%,{k}"), 2, "percent sign", NONE),
    Kind("brackets", lines("x,k", "({i}.5),{k}"), 2, "brackets", NONE),
    Kind("day first", lines("x,k", "13/02/2024,{k}"), 2, "%d/%m/%Y reads it", NONE),
    Kind("day first, dots", lines("x,k", "13.02.2024,{k}"), 2, "%d.%m.%Y reads it", NONE),
    Kind("slashes", lines("x,k", "2024/02/13,{k}"), 2, "%Y/%m/%d reads it", NONE),
    *(
        Kind(
            f"{cell!r} for missing",
            spoilt(cell),
            2,
            f"row 17: expected a number or a date, found {cell!r}",
            NONE,
        )
        for cell in ("-", "?", ".", "missing", "oops", "--", "1.2.3.4", "12a")
    ),
    *(
        Kind(f"{cell!r} is missing", spoilt(cell), 2, "row 17: expected a finite number", NONE)
        for cell in ("", "NA", "n/a", "null", "NaN", "inf", "-Infinity")
    ),
    *(
        Kind(
            f"{cell!r}, a flow named",
            spoilt(cell),
            2,
            "row 17: expected a",
            ("--flow", "maf", *SMALL),
        )
        for cell in ("-", "", "oops", "inf", "1e300", "true", "2024-01-01")
    ),
    Kind("missing, modelled", spoilt(""), 0, "may be missing", ("--missing", "model", *AUTO)),
    Kind("missing, dropped", spoilt("NA"), 0, "", ("--missing", "drop", *AUTO)),
    Kind("'?' and --missing", spoilt("?"), 2, "row 17", ("--missing", "model", *AUTO)),
    Kind("text", lines("x,k", "{x:.4f},city{k}"), 0, "so --flow auto", tuple(AUTO)),
    Kind(
        "text and missing",
        lines("x,k,y", "{x:.4f},city{k},"),
        2,
        "column 'y', row 1: missing",
        NONE,
    ),
    Kind(
        "dates", lines("x,k", "{x:.4f},2024-01-0{k}").replace("-00", "-09"), 0, "date", tuple(AUTO)
    ),
    Kind("a date but for one", lines("k,x", "{k},2024-01-02") + "1,-\n", 2, "row 301", NONE),
    Kind("no header", FLAT.partition("\n")[2], 2, "expected a header, found numbers"),
    Kind("numbers as names", lines("0,1"), 0, "hold"),
    Kind("years as names", lines("2019,2020"), 0, "taken for names"),
    Kind("half a header", lines("x,1.5"), 0, "taken for names"),
    Kind("the same name twice", lines("x,x"), 2, "'x' twice"),
    Kind("no name", lines(",x"), 2, "column 1 has no name"),
    Kind("comment above", "# made by hand\n" + FLAT, 2, "found a comment"),
    Kind("a short row", FLAT + "1\n", 2, "row 301: expected 2 cells"),
    Kind("a long row", spoilt("1,2"), 2, "row 17: expected 2 cells"),
    Kind("empty", "", 2, "is empty"),
    Kind("blank lines", "\n\n  \n", 2, "is empty"),
    Kind("a header alone", "x,k\n", 2, "found none"),
    Kind("few rows", lines("x,k", n=5), 2, "less than one row"),
    Kind("one constant column", lines("x,k", "{x:.4f},7"), 2, "is constant (7"),
    Kind("all constant", lines("x,k", "a,7"), 2, "all columns are constant", NONE),
    Kind("HTML", "<!DOCTYPE html><html><body>404</body></html>", 2, "HTML"),
    Kind("gzip", b"\x1f\x8b\x08" + 40 * b"x", 2, "gzip"),
    Kind("zip", b"PK\x03\x04" + 40 * b"x", 2, "zip"),
    Kind("Parquet", b"PAR1" + 40 * b"x", 2, "name it .parquet"),
    Kind("NUL bytes", FLAT.encode() + b"\0" * 20, 2, "NUL"),
    Kind("UTF-16", FLAT.encode("utf-16"), 2, "UTF-16"),
    Kind("Latin-1 name", lines("x,é").encode("latin-1"), 2, "UTF-8"),
    Kind("Latin-1 cell", (lines("x,k", "{x},caf") + "1,café\n").encode("latin-1"), 2, "UTF-8"),
    Kind(
        "ids of 25 digits",
        lines("x,k", "{x:.4f},12345678901234567890123{k:02d}"),
        2,
        "15 digits",
        NONE,
    ),
    Kind("ids of 17 digits", lines("x,k", "{x:.4f},1234567890123456{k}"), 2, "15 digits"),
    Kind("1e300", spoilt("1e300"), 2, "row 17: expected a finite number within the range", NONE),
    Kind(
        "1e300 beside text", lines("x,k,y", "{x:.4f},a{k},1.5") + "1,a1,1e300\n", 2, "float32", NONE
    ),
    Kind("a break in quotes", lines("x,k", '{x:.4f},"a\n{k}"'), 0, "so --flow auto", tuple(AUTO)),
    Kind("one column", lines("x", "{x:.4f}"), 0, "nsf was taken for one column"),
    Kind(
        "one column, affine", lines("x", "{x:.4f}"), 0, "make a Gaussian", ("--flow", "maf", *SMALL)
    ),
    Kind("halves", lines("x,h", "{x:.4f},{k}.5"), 0, "h holds values on a grid"),
    Kind("codes as floats", lines("x,h", "{x:.4f},{k}.0"), 0, "h holds values on a grid"),
    Kind("continuous by wish", FLAT, 0, "training maf", (*SMALL, "--continuous")),
    Kind("many at zero", "x,z\n" + "".join(f"{x},{max(x, 0)}\n" for x in X), 0, "many rows share"),
    Kind(
        "GPS seconds",
        "t,y\n" + "".join(f"{1.26e9 + 300 * x},{k + x}\n" for x, k in zip(X, K, strict=True)),
        0,
        "training",
    ),
    Kind("Parquet: flags", parquet(b=K > 1), 0, "so --flow auto", tuple(AUTO)),
    Kind(
        "Parquet: flags, a flow", parquet(b=K > 1), 2, "found type bool", ("--flow", "maf", *SMALL)
    ),
    Kind("Parquet: unsigned", parquet(u=K.astype(np.uint8)), 0, "u holds values on a grid"),
    Kind("Parquet: float16", parquet(h=X.astype(np.float16)), 0, "training"),
    Kind("Parquet: decimal", parquet(d=[decimal.Decimal(int(k)) / 4 for k in K]), 0, "d holds"),
    Kind(
        "Parquet: dictionary",
        parquet(d=pa.array([f"a{k}" for k in K]).dictionary_encode()),
        0,
        "so --flow auto",
        tuple(AUTO),
    ),
    Kind(
        "Parquet: past 2^53",
        parquet(i=2**53 + 1 + K),
        2,
        "row 1: expected a number of at most 15",
        NONE,
    ),
    Kind(
        "Parquet: missing",
        parquet(y=pa.array(X, mask=X > 2)),
        2,
        "expected a finite number, found a missing",
    ),
]


def command(*words: object) -> tuple[int, str]:
    """The exit code of a command, and all that it printed."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            main([str(word) for word in words])
        except SystemExit as exit_:
            return int(exit_.code or 0), told.getvalue()
        except BaseException as error:  # a traceback is a fault here
            return 1, f"{told.getvalue()}{type(error).__name__}: {error}"


def held(kind: Kind, folder: Path) -> str:
    """What is wrong about a kind; empty if it held."""
    if isinstance(kind.content, pa.Table):
        path = folder / "t.parquet"
        pq.write_table(kind.content, path)
    else:
        path = folder / "t.csv"
        data = kind.content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    code, told = command("train", "--data", path, "--out", folder / "runs", *kind.options)
    if code != kind.code or kind.word not in told:
        return f"exit {code}, expected {kind.code} and {kind.word!r}: {told[-300:]!r}"
    if code == 2 and (
        told.strip().splitlines()[-1][:12] != "maskedflow: " or (folder / "runs").exists()
    ):
        return f"more than a line, or something left behind: {told[-300:]!r}"
    if code == 0:
        name = folder / "runs" / "t"
        code, told = command("score", name, path, "-o", folder / "s.csv")
        if code and "nan" not in kind.name and "missing" not in kind.name:
            return f"its own table is not scored: {told[-300:]!r}"
        code, told = command("sample", name, "-n", 50, "-o", folder / "d.csv")
        if code:
            return f"not sampled: {told[-300:]!r}"
        run = mf.load_run(name)
        if run.config.flow is None:
            return ""
        drawn = mf.data.read_table(folder / "d.csv", run.columns, run.density.dtype)
        for module in run.flow.modules():
            if isinstance(module, mf.transforms.Dequantize) and not module.holds(drawn).all():
                return "samples leave the grid"
    return ""


def tried(kind: Kind) -> tuple[bool, str] | None:
    """Tries a kind in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        why = held(kind, Path(folder))
    return (False, why) if why else None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    kinds = asked(__doc__).of({kind.name: partial(tried, kind) for kind in KINDS})
    sys.exit(tell(each(kinds)))
