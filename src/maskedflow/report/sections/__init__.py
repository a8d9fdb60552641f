"""The sections of a page: a new one is a module in here, and its template."""

from __future__ import annotations

from importlib import import_module
from inspect import getmembers, isclass
from pkgutil import iter_modules

from maskedflow.report.section import Section

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
_FOUND = [
    one
    for module in _MODULES
    for _, one in getmembers(module, isclass)
    if issubclass(one, Section) and one.__module__ == module.__name__
]

SECTIONS: tuple[type[Section], ...] = tuple(sorted(_FOUND, key=lambda section: section.place))
"""What pages have, in order."""
