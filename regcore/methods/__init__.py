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
class MethodInfo:
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
    gpu : bool
        It computes on a GPU where there is one, though it has no network.
    """

    location: str
    learned: bool = False
    refines: bool = False
    external: bool = False
    imported: bool = False
    pretrained: bool = False
    missing: Requirement = requirements.nothing
    dimensions: tuple[int, ...] = (2, 3)
    gpu: bool = False

    @property
    def wants_gpu(self) -> bool:
        """Whether registering with it is faster on a GPU."""
        return self.gpu or self.learned or self.refines or self.pretrained


METHODS = {
    "identity": MethodInfo("regcore.methods.classical.alignment:Identity"),
    "affine": MethodInfo("regcore.methods.classical.alignment:Affine"),
    "syn": MethodInfo("regcore.methods.classical.ants:SyN", external=True),
    "niftyreg": MethodInfo("regcore.methods.classical.niftyreg:NiftyReg", external=True, missing=requirements.niftyreg),
    "greedy": MethodInfo(
        "regcore.methods.classical.greedy:Greedy", external=True, missing=requirements.package("picsl_greedy", "greedy")
    ),
    "dipy": MethodInfo(
        "regcore.methods.classical.dipy:DipySyN", external=True, missing=requirements.package("dipy", "dipy")
    ),
    "convexadam": MethodInfo(
        "regcore.methods.classical.convexadam:ConvexAdam",
        external=True,
        missing=requirements.package("convexAdam", "convexadam"),
        dimensions=(3,),
        gpu=True,
    ),
    "demons": MethodInfo(
        "regcore.methods.classical.demons:Demons", external=True, missing=requirements.package("SimpleITK", "demons")
    ),
    "deeds": MethodInfo(
        "regcore.methods.classical.deeds:Deeds", external=True, missing=requirements.deeds, dimensions=(3,)
    ),
    "elastix": MethodInfo("regcore.methods.classical.elastix:Elastix", external=True, missing=requirements.elastix),
    "fireants": MethodInfo(
        "regcore.methods.classical.fireants:FireANTs",
        external=True,
        missing=requirements.fireants,
        dimensions=(3,),
        gpu=True,
    ),
    "imported": MethodInfo("regcore.methods.imported:Imported", imported=True),
    "instance": MethodInfo("regcore.methods.instance:Instance", gpu=True),
    "refine": MethodInfo("regcore.methods.refine:Refine", refines=True),
    "autoreg": MethodInfo("regcore.methods.autoreg:AutoReg", learned=True),
    "hypermorph": MethodInfo("regcore.methods.hypermorph:HyperMorph", learned=True),
    "hyperspr": MethodInfo("regcore.methods.hypertransmorph:HyperSPR", learned=True),
    "hypertransmorph": MethodInfo("regcore.methods.hypertransmorph:HyperTransMorph", learned=True),
    "pretrained": MethodInfo("regcore.models.pretrained:Pretrained", pretrained=True),
    "synthmorph": MethodInfo("regcore.methods.synthmorph:SynthMorph", learned=True),
    "transmorph": MethodInfo("regcore.methods.transmorph:TransMorph", learned=True),
    "spr": MethodInfo("regcore.methods.spr:SPR", learned=True),
    "voxelmorph": MethodInfo("regcore.methods.voxelmorph:VoxelMorph", learned=True),
}


def method_info(name: str, where: str = "method") -> MethodInfo:
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
    module, _, attribute = method_info(name, where).location.partition(":")
    return getattr(importlib.import_module(module), attribute)(settings or {}, where)
