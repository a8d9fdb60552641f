"""Tables in FITS files, through astropy: rows are read slice by slice from the file."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Place, SlicedSource, UnreadableError, one_line, partner, places
from .source import Source


def open_fits(path: Path, file: Path, member: str) -> Source:
    """Opens the first table of a FITS file, or the extension of a name or a number."""
    fits = partner(path, "astropy.io.fits", "FITS tables", "fits")
    with one_line(path, "FITS"):
        return FitsSource(path, file, member, fits)


class FitsSource(SlicedSource):
    """A binary or ASCII table of a FITS file."""

    def __init__(self, path: Path, file: Path, member: str, fits: Any) -> None:
        self._file, self._fits = file, fits
        self.path = path
        with self._hdus() as hdus:
            tables = {
                i: hdu.name or str(i)
                for i, hdu in enumerate(hdus)
                if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)
                and not isinstance(hdu, fits.CompImageHDU)
            }
            chosen = [i for i, name in tables.items() if member in ("", name, str(i))]
            if not chosen:
                known = ", ".join(tables.values())
                raise UnreadableError(
                    f"expected one of {known} behind ::, found {member!r}"
                    if member and tables
                    else "expected a table among its extensions, found none"
                )
            self._number = chosen[0]
            hdu = hdus[self._number]
            end = hdu.fileinfo()["datLoc"] + hdu.size
            if end > (size := file.stat().st_size):
                raise UnreadableError(f"is cut off: its table ends at byte {end:,} of {size:,}")
            # The cells of such a column lie elsewhere in the file, as many as each row likes.
            long = [
                one.name
                for one in hdu.columns
                if str(one.format).lstrip("0123456789").startswith(("P", "Q"))
            ]
            columns: dict[str, Place] = {}
            for name in hdu.columns.names:
                if name not in long:
                    columns |= places(name, hdu.data.dtype[name].shape)
            count = hdu.header["NAXIS2"]
            if not count:
                raise UnreadableError("expected at least one row, found none")
        notes = []
        if len(tables) > 1 and not member:
            others = ", ".join(name for i, name in tables.items() if i != self._number)
            notes.append(
                f"{tables[self._number]} is read, the first table of {path}; {path.name}::NAME "
                f"reads another: {others}"
            )
        if long:
            notes.append(f"left out of {path}, for they differ in length: {', '.join(long)}")
        super().__init__(path, columns, count, notes=notes)

    @contextmanager
    def _hdus(self) -> Iterator[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in a header need not be wrong
            with self._fits.open(self._file, memmap=True) as hdus:
                yield hdus

    def _slices(self, arrays: Collection[str], first: int, last: int) -> Mapping[str, Any]:
        with one_line(self.path, "FITS"), self._hdus() as hdus:
            hdu = hdus[self._number]
            rows = hdu.data[first : max(last, first + 1)]  # it cannot read none
            stored = rows.view(np.ndarray)
            return {
                name: _masked(np.array(rows.field(name)), stored[name], hdu.columns[name])[
                    : last - first
                ]
                for name in arrays
            }


def _masked(x: np.ndarray[Any, Any], stored: np.ndarray[Any, Any], column: Any) -> Any:
    """Values of a column, masked where what is stored is the column's null.

    An empty text is missing, and a logical that is neither T nor F; blanks behind a text are none
    of it.
    """
    if x.dtype.kind in "SU":
        x = np.char.rstrip(x)
        return np.ma.array(x, mask=np.char.str_len(x) == 0)
    if x.dtype.kind == "b" and stored.dtype.kind in "iu":
        return np.ma.array(x, mask=stored == 0)
    if column.null in (None, ""):
        return x
    if stored.dtype.kind == "S":  # of an ASCII table
        return np.ma.array(x, mask=np.char.strip(stored) == str(column.null).strip().encode())
    return np.ma.array(x, mask=stored == column.null)
