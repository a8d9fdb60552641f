"""What a flow says to a keyword that it does not know."""

from __future__ import annotations

import abc
import difflib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from torch import nn


class NamesKeywords(abc.ABCMeta):
    """The metaclass of flows, whose error about a keyword names the flow and the nearest one.

    Constructors hand their keywords on, to a network in the end: without this the error would be
    about that.
    """

    passes_to: tuple[type, ...] = ()
    """What takes the keywords that a constructor hands on."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, which `__call__` would hide."""
        made = next(vars(kind)["__init__"] for kind in cls.__mro__ if "__init__" in vars(kind))
        return inspect.Signature(list(inspect.signature(made).parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            found = re.search(r"(?:unexpected keyword argument|keyword) '(\w+)'", str(error))
            if found is None or found[1] not in kwargs:
                raise
            near = difflib.get_close_matches(found[1], _keywords(cls), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"{cls.__name__}: got an unknown keyword {found[1]!r}{hint}"
        raise TypeError(message)


def _keywords(cls: NamesKeywords) -> list[str]:
    found = {
        name: None
        for kind in (*cls.__mro__, *cls.passes_to)
        if "__init__" in vars(kind) and kind.__module__.startswith("maskedflow.")
        for name in inspect.signature(vars(kind)["__init__"]).parameters
    }
    return [name for name in found if name not in ("self", "args", "kwargs")]


def check_keywords(network: type[nn.Module], keywords: Iterable[str]) -> None:
    """Refuses keywords that a network, made with a context only, does not take, by a TypeError."""
    known = inspect.signature(network).parameters
    for name in keywords:
        if name not in known:
            raise TypeError(f"{network.__name__} got an unexpected keyword argument {name!r}")
