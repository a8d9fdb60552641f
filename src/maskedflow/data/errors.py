"""Columns of measurement errors: whose they are, and that they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from maskedflow.sources import Source


def roles(
    source: Source, context: Sequence[str], errors: Mapping[str, str] | None
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """The features, the context columns, and those of errors in the order of the features."""
    given = dict(errors or {})
    source.known((*given, *given.values()), "errors")
    _, context = source.roles(context)
    taken: dict[str | None, str] = dict.fromkeys(context, "a context")
    taken[source.weights] = "that of weights"
    for name in (*given, *given.values()):
        if name in taken:
            raise ValueError(
                f"errors: column {name!r} of {source.path} is {taken[name]}; expected another"
            )
    features, _ = source.roles((*context, *given.values()))
    ordered = {name: given[name] for name in features if name in given}
    return features, context, ordered


def check_errors(x: Tensor, columns: Sequence[str], source: Source, start: int = 0) -> None:
    """Refuses standard deviations, of rows from `start` of a source on, that are negative."""
    for values, name in zip(x.unbind(1), columns, strict=True):
        if (values < 0).any():
            row = int((values < 0).nonzero()[0])
            expected = "a standard deviation, at least 0"
            raise source.cell_error(name, start + row, expected, f"{values[row].item():g}")
