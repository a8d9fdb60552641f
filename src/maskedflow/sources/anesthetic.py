"""Samples that anesthetic wrote as CSV: a row index, weights in it, and labels below the names."""

from __future__ import annotations

from collections.abc import Sequence

WEIGHTS = "weights"
"""anesthetic's name of the level of the index that has the weights."""

BESIDE = (WEIGHTS, "logL", "logL_birth", "nlive")
"""Its names of what is known of a sample beside its parameters."""


def samples_heading(head: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], int] | None:
    """The names of all columns and the number of lines above the first row, if anesthetic wrote it.

    The first column, which only counts the rows, has no name.

    Example:
        >>> samples_heading([["", "weights", "a"], ["0", "0.5", "1.5"]])
        (('', 'weights', 'a'), 1)
        >>> samples_heading([["", "", "a"], ["labels", "", "$a$"], ["", "weights", ""]])
        (('', 'weights', 'a'), 3)
        >>> samples_heading([["", "a"], ["labels", "$a$"], ["0", "1.5"]])
        (('', 'a'), 2)
    """
    header, *rest = head
    if header[0]:
        return None
    if header[1:2] == [WEIGHTS]:
        return tuple(header), 1
    if not rest or rest[0][:1] != ["labels"]:
        return None
    if len(rest) > 1 and rest[1][:2] == ["", WEIGHTS] and not any(rest[1][2:]):
        return ("", WEIGHTS, *header[2:]), 3
    return tuple(header), 2
