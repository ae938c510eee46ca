"""Registration methods, each behind the contract of :mod:`regcore.methods.base`.

The registry is light on purpose: it can be read, and a study planned, without loading torch.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from regcore.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Entry:
    """Where a method lives, whether it is trained, and whether it starts from one that was."""

    location: str
    learned: bool = False
    refines: bool = False


METHODS = {
    "identity": Entry("regcore.methods.classical:Identity"),
    "affine": Entry("regcore.methods.classical:Affine"),
    "syn": Entry("regcore.methods.classical:SyN"),
    "instance": Entry("regcore.methods.instance:Instance"),
    "refine": Entry("regcore.methods.refine:Refine", refines=True),
    "voxelmorph": Entry("regcore.methods.voxelmorph:VoxelMorph", learned=True),
}


def entry(name: str, where: str = "method") -> Entry:
    """Look a method up; raises :class:`InputError` with the nearest known name."""
    if name not in METHODS:
        raise InputError(f"{where}: unknown method '{name}'{did_you_mean(name, METHODS)}")
    return METHODS[name]


def make_method(name: str, settings: Mapping | None = None, where: str = "method"):
    """Load a method and check its settings.

    Returns
    -------
    regcore.methods.base.Method

    Raises
    ------
    InputError
        The method or one of its settings is unknown or invalid.
    """
    module, _, attribute = entry(name, where).location.partition(":")
    return getattr(importlib.import_module(module), attribute)(settings or {}, where)
