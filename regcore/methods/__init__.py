"""Registration methods, each behind the contract of :mod:`regcore.methods.base`.

The registry is light on purpose: it can be read, and a study planned, without loading torch.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from regcore.errors import InputError, did_you_mean
from regcore.methods import requirements
from regcore.methods.requirements import Requirement


@dataclass(frozen=True)
class Entry:
    """Where a method lives, and what a plan has to know about it.

    Parameters
    ----------
    location : str
        ``module:class``.
    learned : bool
        It is trained.
    refines : bool
        It starts from one that was.
    external : bool
        A tool that is not ours does the work.
    imported : bool
        Its fields were made elsewhere: they are read, not found.
    pretrained : bool
        It was trained elsewhere: its setting ``model`` is a folder.
    missing : callable
        What it needs and does not find, by its settings.
    dimensions : tuple of int
        Of the images that it can register.
    """

    location: str
    learned: bool = False
    refines: bool = False
    external: bool = False
    imported: bool = False
    pretrained: bool = False
    missing: Requirement = requirements.nothing
    dimensions: tuple[int, ...] = (2, 3)


METHODS = {
    "identity": Entry("regcore.methods.classical.alignment:Identity"),
    "affine": Entry("regcore.methods.classical.alignment:Affine"),
    "syn": Entry("regcore.methods.classical.ants:SyN", external=True),
    "niftyreg": Entry("regcore.methods.classical.niftyreg:NiftyReg", external=True, missing=requirements.niftyreg),
    "greedy": Entry(
        "regcore.methods.classical.greedy:Greedy", external=True, missing=requirements.package("picsl_greedy", "greedy")
    ),
    "dipy": Entry(
        "regcore.methods.classical.dipy:DipySyN", external=True, missing=requirements.package("dipy", "dipy")
    ),
    "convexadam": Entry(
        "regcore.methods.classical.convexadam:ConvexAdam",
        external=True,
        missing=requirements.package("convexAdam", "convexadam"),
        dimensions=(3,),
    ),
    "demons": Entry(
        "regcore.methods.classical.demons:Demons", external=True, missing=requirements.package("SimpleITK", "demons")
    ),
    "deeds": Entry("regcore.methods.classical.deeds:Deeds", external=True, missing=requirements.deeds, dimensions=(3,)),
    "elastix": Entry("regcore.methods.classical.elastix:Elastix", external=True, missing=requirements.elastix),
    "fireants": Entry(
        "regcore.methods.classical.fireants:FireANTs", external=True, missing=requirements.fireants, dimensions=(3,)
    ),
    "imported": Entry("regcore.methods.imported:Imported", imported=True),
    "instance": Entry("regcore.methods.instance:Instance"),
    "refine": Entry("regcore.methods.refine:Refine", refines=True),
    "autoreg": Entry("regcore.methods.autoreg:AutoReg", learned=True),
    "hypermorph": Entry("regcore.methods.hypermorph:HyperMorph", learned=True),
    "hyperspr": Entry("regcore.methods.hypertransmorph:HyperSPR", learned=True),
    "hypertransmorph": Entry("regcore.methods.hypertransmorph:HyperTransMorph", learned=True),
    "pretrained": Entry("regcore.models.pretrained:Pretrained", pretrained=True),
    "synthmorph": Entry("regcore.methods.synthmorph:SynthMorph", learned=True),
    "transmorph": Entry("regcore.methods.transmorph:TransMorph", learned=True),
    "spr": Entry("regcore.methods.spr:SPR", learned=True),
    "voxelmorph": Entry("regcore.methods.voxelmorph:VoxelMorph", learned=True),
}


#: What an entry of a study says beside settings: its method, and a search (:mod:`regcore.tuning.search` for
#: hyperparameters, :mod:`regcore.autoreg.search` for architectures).
ENTRY_KEYS = ("method", "tune", "autosearch")


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


def method_of(name: str, values: Mapping) -> str:
    """The method of an entry of a study: what it says, or its name."""
    return values.get("method", name)


def settings_of(values: Mapping) -> dict:
    """The settings of an entry of a study."""
    return {key: value for key, value in values.items() if key not in ENTRY_KEYS}


def make_entry(name: str, values: Mapping):
    """Load the method of an entry of a study and check its settings; like :func:`make_method`."""
    return make_method(method_of(name, values), settings_of(values), f"methods.{name}")
