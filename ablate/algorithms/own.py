"""Methods that a researcher writes: loaded from ``package.module:NAME`` or ``./file.py:NAME``, checked as ours are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ablate.algorithms.base import Method, OwnCode
from ablate.catalogs.digests import sha256_file
from ablate.catalogs.functions import import_own, source_file
from ablate.catalogs.parameters import Parameters
from ablate.errors import DataError, Location

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def is_own(name: str) -> bool:
    """Whether the name of an algorithm says where a method is written."""
    return ":" in name


def load_method(name: str, folder: Path, place: Location | None = None) -> Method:
    """Return the method called ``name`` with its code's digests; a path is relative to ``folder``.

    Its ``entry`` is a function of the same file, or ``module:function`` of another module of the researcher's. Raises
    DataError at ``place``, where it is named.
    """
    module, _, attribute = name.rpartition(":")
    if module.endswith(".py"):
        module = str((folder / Path(module).expanduser()).resolve())
    method = import_own(f"{module}:{attribute}", "the method", place=place)
    if not isinstance(method, Method):
        raise DataError(
            f"{name} is {type(method).__name__}, not a method",
            location=place,
            hint="a method is a value of the class Method of ablate.algorithms.base",
        )
    _check(method, name, place)
    step = method.entry if ":" in method.entry else f"{module}:{method.entry}"
    files = {"method": source_file(f"{module}:{attribute}", place), "step": source_file(step, place)}
    digests = {role: sha256_file(file) for role, file in files.items()}
    return replace(method, own_code=OwnCode(step, digests))


def _check(method: Method, name: str, place: Location | None) -> None:
    if not _NAME.fullmatch(method.name):
        raise DataError(
            f"{name} is named {method.name!r}", location=place, hint="a name is small letters, digits and underscores"
        )
    if not (isinstance(method.parameters, type) and issubclass(method.parameters, Parameters)):
        raise DataError(
            f"the parameters of {name} are {method.parameters!r}",
            location=place,
            hint="parameters are a class like those of ablate.algorithms.base: PairParameters, TrainingParameters",
        )
