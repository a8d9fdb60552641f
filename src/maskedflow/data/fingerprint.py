"""Recognising rows without keeping them: a sketch of the rows that something was fitted to."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .copies import RARE, Grain, row_hashes, scrambled
from .split import Array

KEPT = 8192
"""The most hashes that are kept: 64 kB."""

ALARM = 0.01
"""The share of rows seen before from which on their likelihood says nothing about new ones."""

ENOUGH = 300
"""Rows to look up: if one in a hundred was seen before, these include one with 95% probability."""

_ALL = 2**64 - 1

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Fingerprint:
    """The smallest hashes of some rows, as many as fit: all of them, if rows are few.

    Whether a row is one of them can be told if its hash is no larger than the largest one kept.
    What is kept are salted hashes and no data; but whoever has a row can ask for it.

    Args:
        rows: The number of rows.
        told: The number of those that would hardly occur twice by chance; others are not kept.
        salt: What the hashes are scrambled with.
        bound: Hashes up to this one, before that, are kept.
        hashes: These, salted and ascending.

    References:
        | On synopses for distinct-value estimation under multiset operations
        | (Beyer, Haas, Reinwald, Sismanis, Gemulla, 2007), section 4: the k minimum values

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 1000))
        >>> fingerprint = Fingerprint.of(x[:, :800], x[:, :800])
        >>> seen = Trace(fingerprint).seen(list(x))
        >>> seen.trained, seen.rows
        (800, 1000)
    """

    rows: int
    told: int
    salt: int
    bound: int
    hashes: Hashes

    @classmethod
    def of(cls, columns: Sequence[Array], numbers: Sequence[Array]) -> Fingerprint:
        """That of rows, by the columns that make a row and those of them that hold quantities."""
        hashes = row_hashes(columns)
        sketch = Sketch(Grain.of(numbers), len(hashes))
        sketch.add(hashes, numbers)
        return sketch.fingerprint()

    @property
    def knows(self) -> bool:
        """Whether most of the rows can be told apart."""
        return 2 * self.told >= self.rows

    def among(self, hashes: Hashes) -> tuple[int, int]:
        """How many rows with these hashes are known, among how many that could be looked up."""
        near = hashes[hashes <= np.uint64(self.bound)]
        return int(np.isin(scrambled(near ^ np.uint64(self.salt)), self.hashes).sum()), len(near)

    def to_plain(self) -> dict[str, Any]:
        """The fingerprint as plain values, for JSON."""
        text = base64.b64encode(self.hashes.astype("<u8").tobytes()).decode("ascii")
        numbers = {"salt": str(self.salt), "bound": str(self.bound)}  # too long for some JSON
        return {"rows": self.rows, "told": self.told, **numbers, "hashes": text}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Reads what :meth:`to_plain` gave, or raises a ValueError."""
        try:
            hashes = np.frombuffer(base64.b64decode(plain["hashes"], validate=True), "<u8")
            rows, told, salt, bound = (int(plain[k]) for k in ("rows", "told", "salt", "bound"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no fingerprint of rows ({type(error).__name__}: {error})") from None
        if not (0 <= salt <= _ALL and 0 <= bound <= _ALL):
            raise ValueError(f"no fingerprint of rows (salt {salt}, bound {bound})")
        return cls(rows, told, salt, bound, hashes.astype(np.uint64))


class Sketch:
    """A fingerprint in the making."""

    def __init__(self, grain: Grain, rows: int) -> None:
        self.grain, self.about = grain, rows
        self.rows = self.told = self.salt = 0
        self.bound, self.hashes = _ALL, np.empty(0, np.uint64)

    def add(self, hashes: Hashes, numbers: Sequence[Array]) -> None:
        """Takes some more rows into account, by their hashes and numbers."""
        told = hashes[self.grain.tells(numbers, len(hashes), RARE * self.about)]
        self.rows += len(hashes)
        self.told += len(told)
        self.salt ^= int(np.bitwise_xor.reduce(hashes))
        some = np.union1d(self.hashes, told[told <= np.uint64(self.bound)])
        if len(some) > KEPT:
            some = some[:KEPT]
            self.bound = int(some[-1])
        self.hashes = some

    def fingerprint(self) -> Fingerprint:
        """That of the rows so far."""
        salt = int(scrambled(np.uint64(self.salt)))
        salted = np.sort(scrambled(self.hashes ^ np.uint64(salt)))
        return Fingerprint(self.rows, self.told, salt, self.bound, salted)


@dataclass(frozen=True)
class Trace:
    """What is remembered of the rows that a density was fitted to, and of those that validated."""

    train: Fingerprint
    validation: Fingerprint | None = None

    def seen(self, columns: Sequence[Array], what: str = "rows") -> Seen:
        """Recognises rows, by their columns; `what` they are called."""
        hashes = row_hashes(columns)
        found, told = self.train.among(hashes)
        chosen, known = (0, 0) if self.validation is None else self.validation.among(hashes)
        n = len(hashes)
        trained = round(found / told * n) if told else 0
        return Seen(
            rows=n,
            trained=trained,
            validated=min(round(chosen / known * n) if known else 0, n - trained),
            told=told,
            known=bool(told) and self.train.knows,
            what=what,
        )

    def to_plain(self) -> dict[str, Any]:
        """The trace as plain values, for JSON."""
        parts = {"train": self.train, "validation": self.validation}
        return {name: part.to_plain() for name, part in parts.items() if part is not None}

    @classmethod
    def from_plain(cls, plain: Any) -> Self | None:
        """Reads what :meth:`to_plain` gave; None of None, which is what older files hold.

        Raises:
            ValueError: If it is something else.
        """
        if plain is None:
            return None
        try:
            parts = {name: plain[name] for name in ("train", "validation") if plain.get(name)}
            return cls(**{name: Fingerprint.from_plain(part) for name, part in parts.items()})
        except (AttributeError, TypeError):
            raise ValueError("no fingerprints of rows") from None


@dataclass(frozen=True)
class Seen:
    """How many of some rows a density was made with.

    Some `trained` it (estimated where only those `told` could be looked up), others `validated`: by
    these it was chosen when to stop. If all is `known`, a row that was not found is a new one.

    Example:
        >>> print(Seen(500, 400, 0, 500, True))
        400 of these 500 rows were trained on
        >>> print(Seen(500, 0, 50, 500, True))
        none of these 500 rows was trained on, but 50 chose when to stop
    """

    rows: int
    trained: int
    validated: int
    told: int
    known: bool
    what: str = "rows"

    @property
    def new(self) -> bool:
        """Whether it was fitted to none of the rows, to hardly one in a hundred at most."""
        return self.known and not self.trained and self.told >= min(self.rows, ENOUGH)

    @property
    def spoilt(self) -> bool:
        """Whether it was fitted to so many that their likelihood is not that of new rows."""
        return self.trained > ALARM * self.rows

    def __str__(self) -> str:
        if not (self.known or self.trained):
            return unknown(self.what)
        n, about = f"{self.rows:,} {self.what}", "" if self.told == self.rows else "about "
        if self.trained:
            least = "" if self.known else "at least "
            verb = "was" if self.trained == 1 else "were"
            text = f"{about or least}{self.trained:,} of these {n} {verb} trained on"
        else:
            text = f"none of these {n} was trained on"
            text += f", as far as {self.told:,} of them tell" if about else ""
        if self.validated:
            link = "and" if self.trained else "but"
            text += f", {link} {about}{self.validated:,} chose when to stop"
        return text


def unknown(what: str = "rows") -> str:
    """What is said where nothing is known."""
    return f"it is not known whether some of these {what} were trained on"
