"""Registration methods. All follow the contract of :mod:`regcore.methods.base`.

The registry needs no torch, so that it can be read and a study planned quickly.  Besides regcore's own methods it
knows those of installed packages, which declare them under the entry points ``regcore.methods``
(docs/new-method.md).
"""

import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from regcore.errors import InputError, did_you_mean
from regcore.methods.settings.base import MethodSettings

#: Entry points for the methods of installed packages: ``name = "module:Class"``.
ENTRY_POINTS = "regcore.methods"
SETTINGS, CLASSICAL = "regcore.methods.settings", "regcore.methods.classical"


@dataclass(frozen=True)
class MethodInfo:
    """Where a method is defined, and what a plan needs to know about it.

    Parameters
    ----------
    location : str
        ``module:class``.
    settings : str or None
        ``module:class`` of its settings, loaded without torch.  None: the method's class names it.
    learned : bool
        Whether the study trains it.
    refines : bool
        Whether it starts from the field of a trained network.
    external : bool
        Whether it runs an external tool.
    imported : bool
        Whether its fields are read from files rather than computed.
    pretrained : bool
        Whether it uses an existing model, whose folder is its setting ``model``.
    uses_masks : bool
        Whether it ignores what masks exclude.
    uses_channels : bool
        Whether it compares several images of each subject.
    uses_labels : bool
        Whether label maps can guide it.
    dimensions : tuple of int
        Dimensions of the images that it can register.
    gpu : bool
        Whether it uses a GPU if there is one, although it has no network.

    Examples
    --------
    >>> from regcore.methods import METHODS
    >>> [name for name, info in METHODS.items() if info.external and 2 in info.dimensions]
    ['syn', 'niftyreg', 'greedy', 'dipy', 'demons', 'elastix']
    """

    location: str
    settings: str | None = None
    learned: bool = False
    refines: bool = False
    external: bool = False
    imported: bool = False
    pretrained: bool = False
    uses_masks: bool = False
    uses_channels: bool = False
    uses_labels: bool = False
    dimensions: tuple[int, ...] = (2, 3)
    gpu: bool = False

    @property
    def wants_gpu(self) -> bool:
        """Whether registration is faster on a GPU."""
        return self.gpu or self.learned or self.refines or self.pretrained


#: Attributes that a method's class has under the same names.
FACTS = (
    "learned",
    "refines",
    "external",
    "imported",
    "pretrained",
    "uses_masks",
    "uses_channels",
    "uses_labels",
    "dimensions",
    "gpu",
)


def _own(location: str, settings: str, **facts: Any) -> MethodInfo:
    return MethodInfo(f"regcore.methods.{location}", f"{SETTINGS}.{settings}", **facts)


def _tool(location: str, settings: str, **facts: Any) -> MethodInfo:
    module = location.partition(":")[0]
    return MethodInfo(f"{CLASSICAL}.{location}", f"{SETTINGS}.classical.{module}:{settings}", external=True, **facts)


#: The methods of regcore.
METHODS = {
    "identity": _own("classical.alignment:Identity", "classical.alignment:NoSettings"),
    "affine": _own("classical.alignment:Affine", "classical.alignment:NoSettings", uses_masks=True),
    "syn": _tool("ants:SyN", "SyNSettings", uses_masks=True, uses_channels=True),
    "niftyreg": _tool("niftyreg:NiftyReg", "NiftyRegSettings", uses_masks=True),
    "greedy": _tool("greedy:Greedy", "GreedySettings", uses_masks=True, uses_channels=True),
    "dipy": _tool("dipy:DipySyN", "DipySettings"),
    "convexadam": _tool("convexadam:ConvexAdam", "ConvexAdamSettings", dimensions=(3,), gpu=True),
    "demons": _tool("demons:Demons", "DemonsSettings"),
    "deeds": _tool("deeds:Deeds", "DeedsSettings", dimensions=(3,)),
    "elastix": _tool("elastix:Elastix", "ElastixSettings", uses_masks=True),
    "fireants": _tool("fireants:FireANTs", "FireANTsSettings", dimensions=(3,), gpu=True),
    "imported": _own("imported:Imported", "imported:ImportedSettings", imported=True),
    "instance": _own(
        "instance:Instance",
        "instance:InstanceSettings",
        uses_masks=True,
        uses_channels=True,
        uses_labels=True,
        gpu=True,
    ),
    "auto": _own("auto:Auto", "auto:AutoSettings", uses_masks=True, uses_channels=True, uses_labels=True, gpu=True),
    "refine": _own("refine:Refine", "refine:RefineSettings", refines=True),
    "autoreg": _own("autoreg:AutoReg", "autoreg:AutoRegSettings", learned=True),
    "hypermorph": _own("hypermorph:HyperMorph", "hypermorph:HyperMorphSettings", learned=True),
    "hyperspr": _own("hypertransmorph:HyperSPR", "spr:HyperSPRSettings", learned=True),
    "hypertransmorph": _own("hypertransmorph:HyperTransMorph", "transmorph:HyperTransMorphSettings", learned=True),
    "pretrained": MethodInfo(
        "regcore.models.pretrained:Pretrained", f"{SETTINGS}.pretrained:PretrainedSettings", pretrained=True
    ),
    "synthmorph": _own("synthmorph:SynthMorph", "synthmorph:SynthMorphSettings", learned=True),
    "transmorph": _own("transmorph:TransMorph", "transmorph:TransMorphSettings", learned=True),
    "spr": _own("spr:SPR", "spr:SPRSettings", learned=True),
    "voxelmorph": _own("voxelmorph:VoxelMorph", "voxelmorph:VoxelMorphSettings", learned=True),
}


@cache
def installed_methods() -> dict[str, importlib.metadata.EntryPoint]:
    """The methods of installed packages. They cannot replace regcore's own.

    Returns
    -------
    dict of str → EntryPoint
        By name.

    Examples
    --------
    >>> from regcore.methods import METHODS, installed_methods
    >>> set(installed_methods()) & set(METHODS)
    set()
    """
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in found if point.name not in METHODS}


def methods_with_masks() -> list[str]:
    """Names of the methods that ignore what masks exclude.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from regcore.methods import methods_with_masks
    >>> "instance" in methods_with_masks(), "demons" in methods_with_masks()
    (True, False)
    """
    return methods_with("uses_masks")


def methods_with(fact: str) -> list[str]:
    """Names of the methods of which a fact is true.

    Parameters
    ----------
    fact : str
        An attribute of :class:`MethodInfo`.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from regcore.methods import methods_with
    >>> "instance" in methods_with("uses_labels"), "syn" in methods_with("uses_labels")
    (True, False)
    """
    return [name for name in known_methods() if getattr(method_info(name), fact)]


def known_methods() -> list[str]:
    """Names of all methods: regcore's own, then those of installed packages.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from regcore.methods import known_methods
    >>> known_methods()[:3]
    ['identity', 'affine', 'syn']
    """
    return [*METHODS, *installed_methods()]


def method_info(name: str, where: str = "method") -> MethodInfo:
    """Look up a method.

    Parameters
    ----------
    name : str
        Name of the method.
    where : str
        Name of the entry in messages.

    Returns
    -------
    MethodInfo

    Raises
    ------
    InputError
        No method has this name (the message suggests the nearest one), or an installed package declares a method
        that it does not have.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.methods import method_info
    >>> method_info("spr").learned, method_info("convexadam").dimensions
    (True, (3,))
    >>> try:
    ...     method_info("voxelmorf")
    ... except InputError as error:
    ...     print(error)
    method: unknown method 'voxelmorf'; did you mean 'voxelmorph'?
    """
    if name in METHODS:
        return METHODS[name]
    if name not in installed_methods():
        raise InputError(f"{where}: unknown method '{name}'{did_you_mean(name, known_methods())}")
    found = _installed(name, where)
    return MethodInfo(installed_methods()[name].value, **{fact: getattr(found, fact) for fact in FACTS})


def method_type(name: str, where: str = "method") -> type[Any]:
    """The class of a method, which loads torch.

    Parameters
    ----------
    name : str
        Name of the method.
    where : str
        Name of the entry in messages.

    Returns
    -------
    type
        A subclass of :class:`regcore.methods.base.Method`.

    Raises
    ------
    InputError
        As for :func:`method_info`.

    Examples
    --------
    >>> from regcore.methods import method_type
    >>> method_type("voxelmorph").__name__
    'VoxelMorph'
    """
    info = method_info(name, where)
    return _loaded(info.location) if name in METHODS else _installed(name, where)


def settings_type(name: str, where: str = "method") -> type[MethodSettings]:
    """The class of a method's settings. For regcore's own methods this does not load torch.

    Parameters
    ----------
    name : str
        Name of the method.
    where : str
        Name of the entry in messages.

    Returns
    -------
    type
        A subclass of :class:`regcore.methods.settings.base.MethodSettings`.

    Raises
    ------
    InputError
        As for :func:`method_info`.

    Examples
    --------
    >>> from regcore.methods import settings_type
    >>> settings_type("greedy").schema_of_keys()["radius"]["default"]
    2
    """
    settings = method_info(name, where).settings
    return method_type(name, where).settings_type if settings is None else _loaded(settings)


def read_settings(name: str, values: Mapping | None = None, where: str = "method") -> MethodSettings:
    """Check a method's settings and fill in defaults, as :func:`make_method` does, without loading the method.

    Checks that need the network are left to the method.

    Parameters
    ----------
    name : str
        Name of the method.
    values : mapping, optional
        The settings that differ from the defaults.
    where : str
        Name of the settings in messages.

    Returns
    -------
    MethodSettings
        With all defaults.

    Raises
    ------
    InputError
        The method or one of its settings is unknown or invalid.

    Examples
    --------
    >>> from regcore.methods import read_settings
    >>> settings = read_settings("voxelmorph", {"preset": "paper", "lambda": 2})
    >>> settings.value("lambda"), settings.flow, settings.similarity
    (2, 'displacement', 'lncc')
    """
    return settings_type(name, where).read(values or {}, where)


def make_method(name: str, settings: Mapping | None = None, where: str = "method"):
    """Load a method and check its settings.

    Parameters
    ----------
    name : str
        Name of the method.
    settings : mapping, optional
        The settings that differ from the defaults, or the result of :func:`read_settings`.
    where : str
        Name of the settings in messages.

    Returns
    -------
    regcore.methods.base.Method

    Raises
    ------
    InputError
        The method or one of its settings is unknown or invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> grid = Grid.centred((32, 32), spacing=(1, 1), centre=(0, 0))
    >>> disc = (np.linalg.norm(np.indices((32, 32)) - 15.5, axis=0) < 9).astype(np.float32)
    >>> fixed, moving = Volume(disc, grid), Volume(np.roll(disc, 2, axis=0), grid)
    >>> method = make_method("instance", {"similarity": "mse", "shrink": [2, 1], "iterations": [10, 10]})
    >>> field = method.register(fixed, moving).field
    >>> before, after = (np.square(image.data - disc).mean() for image in (moving, field.warp(moving)))
    >>> bool(after < before / 2)
    True
    """
    return method_type(name, where)(settings or {}, where)


def _loaded(location: str) -> type[Any]:
    module, _, attribute = location.partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def _installed(name: str, where: str) -> type[Any]:
    """The class of a method in an installed package."""
    point = installed_methods()[name]
    package = point.dist.name if point.dist else point.value
    try:
        found = point.load()
    except Exception as error:
        raise InputError(
            f"{where}: the package '{package}' has the method '{name}', but {point.value} cannot be loaded "
            f"({type(error).__name__}: {error}); repair or remove the package"
        ) from error
    settings = getattr(found, "settings_type", None)
    if not (isinstance(settings, type) and issubclass(settings, MethodSettings)):
        raise InputError(
            f"{where}: the method '{name}' of the package '{package}' must be a class whose 'settings_type' is a "
            f"MethodSettings; {point.value} is {found!r} (see docs/new-method.md)"
        )
    return found
