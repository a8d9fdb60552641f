"""The kinds of columns, a class each, which is found by its names: a new one is a file in here."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
