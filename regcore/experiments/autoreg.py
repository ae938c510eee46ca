"""Tables I to V, VIII and IX and Figures 3, 4 and 6 of AutoReg (Fan et al., TIP 2023), on any cohort.

Networks are compared over several random starts, including their searches.  An addition to the paper (Table 10): do
architectures found by trial, at the same cost, do as well?
"""

from collections.abc import Mapping, Sequence
from typing import Any

from regcore.autoreg.search import KEY, read_found
from regcore.errors import InputError
from regcore.experiments import Experiment, Needs, Paper
from regcore.experiments.settings import AutoRegExperiments
from regcore.networks.architecture import DEFORMATION, FEATURE, LAMBDAS, MANUAL, OBJECTIVE, SIZES

#: The section of the study file.
WHERE = "experiments.autoreg"
#: The module that draws the experiments.
DRAWN_BY = "regcore.papers.autoreg.figures"
#: The network with everything searched, and the one with the same cells and the objective chosen by hand.
SEARCHED, CELLS_ALONE, MEDIUM = "autoreg", "autoreg-cells", "manual-medium"
CELLS = [FEATURE, DEFORMATION]
#: Entry → its name in the paper; the others are regcore's.
TITLES = {
    "manual-small": "Manual-Small",
    "manual-medium": "Manual-Medium",
    "manual-large": "Manual-Large",
    "vm": "VM",
    "vm-diff": "VM-diff",
    "vm-unified": "VM, unified objective",
    "vm-autoreg": "VM + AutoReg",
    "with-ncc": "w/ NCC",
    "with-mind": "w/ MIND",
    "manual-medium-objective": "w/ unified*, λ searched",
    "autoreg-cells": "AutoReg, cells alone",
    "autoreg": "AutoReg",
    "random": "random architectures",
    "tpe": "architectures by TPE",
}
#: Columns of Table II: what is searched again for this study; the rest comes from the transferred model.
TRANSFER = {
    "transfer-none": ("nothing", None),
    "transfer-weights": ("ω", []),
    "transfer-feature": ("ω, α_F", [FEATURE]),
    "transfer-deformation": ("ω, α_D", [DEFORMATION]),
    "transfer-objective": ("ω, λ", [OBJECTIVE]),
    "transfer-all": ("ω, α_F, α_D, λ", [*CELLS, OBJECTIVE]),
}


def start(name: str, number: int) -> str:
    """Name of an entry's network with its n-th random start, counted from 1.

    Parameters
    ----------
    name : str
        The entry.
    number : int
        Number of the start.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.autoreg import start
    >>> start("vm", 1), start("vm", 2)
    ('vm', 'vm-2')
    """
    return name if number == 1 else f"{name}-{number}"


def starts(name: str, settings: AutoRegExperiments) -> list[str]:
    """The networks of an entry, one per random start.

    Parameters
    ----------
    name : str
        The entry.
    settings : AutoRegExperiments
        ``starts``.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from regcore.experiments.autoreg import starts
    >>> from regcore.experiments.settings import AutoRegExperiments
    >>> starts("vm", AutoRegExperiments(starts=3))
    ['vm', 'vm-2', 'vm-3']
    """
    return [start(name, number + 1) for number in range(settings.starts)]


def experiments(settings: AutoRegExperiments, classical: Sequence[str]) -> Paper:
    """The variants, and the needs of each table and figure.

    Parameters
    ----------
    settings : AutoRegExperiments
        The section ``experiments.autoreg`` of the study.
    classical : sequence of str
        The study's methods without learning, including the affine alignment: rows of Table IX of the paper [1]_.

    Returns
    -------
    Paper

    Raises
    ------
    InputError
        The model to transfer is missing, or ``search`` sets what the experiments set themselves.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from regcore.experiments.autoreg import experiments
    >>> from regcore.experiments.settings import AutoRegExperiments
    >>> paper = experiments(AutoRegExperiments(starts=1), classical=["affine", "syn"])
    >>> paper["table4"].needs.scores
    ['with-ncc', 'with-mind', 'manual-medium', 'manual-medium-objective']
    >>> paper.variants["with-mind"]
    {'method': 'autoreg', 'lambda1': 0, 'replicate': 1}
    """
    decided = {"what", "start", "by", "as_long_as"} & set(settings.search)
    if decided:
        raise InputError(f"{WHERE}.search: '{min(decided)}' is set by the experiments; remove it")
    if settings.transfer:
        read_found(settings.transfer, f"{WHERE}.transfer")  # raises if there is nothing
    once = _variants(settings)
    variants = {
        start(name, number + 1): {**values, "replicate": number + 1}
        for name, values in once.items()
        for number in range(settings.starts)
    }
    for number in range(settings.starts):
        first = start(CELLS_ALONE, number + 1)
        for name, key in [(SEARCHED, "start"), *((name, "as_long_as") for name in settings.controls)]:
            own = variants[start(name, number + 1)]
            own[KEY] = {**own[KEY], key: first}
    if settings.transfer:
        variants |= _transferred(settings)

    def every(*names: str) -> list[str]:
        return [network for name in names for network in starts(name, settings)]

    def compared(name: str, scores: list[str], reference: str) -> Experiment:
        return Experiment(name, Needs(scores=scores), f"{DRAWN_BY}:compared", {"reference": reference})

    networks, cells = [*classical, "vm", "vm-diff"], every(CELLS_ALONE, *settings.controls)
    found = [
        Experiment(
            "table1",
            Needs(models=[MEDIUM, SEARCHED], architectures=[CELLS_ALONE, SEARCHED]),
            f"{DRAWN_BY}:cost_of_searching",
        ),
        compared("table3", every(*MANUAL, "vm", CELLS_ALONE, SEARCHED), SEARCHED),
        compared("table4", every("with-ncc", "with-mind", MEDIUM, "manual-medium-objective"), MEDIUM),
        compared("table5", every("vm-unified", "vm-autoreg"), "vm-unified"),
        Experiment("table8", Needs(scores=[*networks, *MANUAL, SEARCHED]), f"{DRAWN_BY}:time_and_size"),
        Experiment("table9", Needs(scores=[*networks, SEARCHED]), f"{DRAWN_BY}:all_methods"),
        Experiment("fig3", Needs(architectures=[CELLS_ALONE]), f"{DRAWN_BY}:heat_maps"),
        Experiment("fig4", Needs(architectures=[SEARCHED]), f"{DRAWN_BY}:objective_by_epoch"),
        Experiment("fig6", Needs(scores=[*networks, MEDIUM, SEARCHED]), f"{DRAWN_BY}:boxes"),
        Experiment("fig15", Needs(architectures=every(SEARCHED)), f"{DRAWN_BY}:side_by_side"),
    ]
    if settings.controls:
        found.append(Experiment("table10", Needs(scores=cells, architectures=cells), f"{DRAWN_BY}:controls"))
    if settings.transfer:
        found.append(Experiment("table2", Needs(scores=list(TRANSFER)), f"{DRAWN_BY}:transfer"))
    return Paper(variants, found)


def _variants(settings: AutoRegExperiments) -> dict[str, dict[str, Any]]:
    common = {"method": "autoreg", **settings.settings}
    vm = {"method": "voxelmorph", "similarity": "lncc", "lambda": 1, **settings.voxelmorph}

    def search(*what: str, **more: Any) -> dict[str, Any]:
        return {KEY: {**settings.search, "what": list(what), **more}}

    found = {name: {**common, "architecture": name} for name in MANUAL}
    found |= {
        "vm": {**vm, "flow": "displacement", "flow_resolution": 1},
        "vm-diff": vm,
        "vm-unified": {**common, "network": "unet"},
        "vm-autoreg": {**common, "network": "unet", **search(OBJECTIVE)},
        "with-ncc": {**common, "lambda1": 1},
        "with-mind": {**common, "lambda1": 0},
        "manual-medium-objective": {**common, **search(OBJECTIVE)},
        CELLS_ALONE: {**common, **search(*CELLS)},
        SEARCHED: {**_without_start(common), **search(OBJECTIVE)},
    }
    return found | {name: {**common, **search(*CELLS, by=name)} for name in settings.controls}


def _without_start(settings: Mapping) -> dict[str, Any]:
    """Settings without those that an entry takes from its start."""
    return {name: value for name, value in settings.items() if name not in ("architecture", *LAMBDAS, *SIZES)}


def _transferred(settings: AutoRegExperiments) -> dict[str, dict[str, Any]]:
    model = settings.transfer
    found: dict[str, dict[str, Any]] = {"transfer-none": {"method": "pretrained", "model": model}}
    for name, (_, what) in TRANSFER.items():
        if what is not None:
            search = {**settings.search, "what": what, "start": model}
            found[name] = {"method": "autoreg", **_without_start(settings.settings), KEY: search}
    return found
