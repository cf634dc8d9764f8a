"""The methods by name: all that the modules of this package declare."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from ablate import algorithms
from ablate.algorithms.base import Method
from ablate.errors import Location, UnknownNameError


def declared_methods(package: ModuleType) -> dict[str, Method]:
    """Return the methods that are values in a package's modules, by name, the modules in alphabetical order."""
    found: dict[str, Method] = {}
    for info in pkgutil.iter_modules(package.__path__):
        for method in _methods_in(importlib.import_module(f"{package.__name__}.{info.name}")):
            if found.setdefault(method.name, method) is not method:
                raise ValueError(
                    f"two methods are named {method.name!r}: {found[method.name].title} and {method.title}"
                )
    return found


def _methods_in(module: ModuleType) -> Iterator[Method]:
    for value in vars(module).values():
        values = value if isinstance(value, tuple) else (value,)
        yield from (item for item in values if isinstance(item, Method))


METHODS = declared_methods(algorithms)


def find_method(name: str, *, location: Location | None = None) -> Method:
    """Return the method called ``name``; raises UnknownNameError with the nearest name."""
    method = METHODS.get(name)
    if method is None:
        raise UnknownNameError("algorithm", name, METHODS, location=location)
    return method
