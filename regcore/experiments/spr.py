"""Tables 2 to 6 and Figures 7 to 13 and D.20 of TM-SPR (Chen et al., 2024), on any cohort.

All TransMorphs of a study have the same size and training.  Those with hyperparameters are searched (Section 3.7), the
classical tools of the study are scored beside them.  What the paper did not ask: whether tuning λ alone does as well,
and what a search saves against a dense grid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from regcore.errors import InputError
from regcore.experiments import Experiments
from regcore.methods.constants import PRIORS

#: The section of a study's file that says what is planned.
WHERE = "experiments.spr"
#: Entries by what the paper calls them; the last three are ours.
TITLES = {
    "voxelmorph-wide": "VoxelMorph",
    "hypermorph-wide": "HyperMorph",
    "transmorph": "TransMorph",
    "hyper-transmorph": "Hyper-TransMorph",
    "tm-spr-gaussian": "TM-SPR (Gaussian)",
    "tm-spr-beta": "TM-SPR (Beta)",
    "hyper-tm-spr": "Hyper-TM-SPR (Beta)",
    "hyper-tm-spr-labels": "Hyper-TM-SPR (Beta), with labels",
    "hyper-tm-spr-all": "Hyper-TM-SPR (Beta), all weights generated",
    "transmorph-searched": "TransMorph, λ searched",
    "tm-spr-grid": "TM-SPR (Beta), dense grid",
}
#: The backbone, with which others are compared.
REFERENCE = "transmorph"
SEARCHED = {"tm-spr-beta": "beta", "tm-spr-gaussian": "gaussian"}
#: Entries that a hypernetwork serves at all values of its hyperparameters.
OVER_LAMBDA, OVER_PRIOR = ("hypermorph-wide", "hyper-transmorph"), ("hyper-tm-spr", "hyper-tm-spr-labels")
GRID = "tm-spr-grid"
#: All parts of a TM-SPR that have weights.
EVERYTHING = [
    *(f"network.{part}" for part in ("encoder", "up", "at_quarter", "looks", "decoders", "heads")),
    "head",
]


def at_alpha(alpha: float) -> str:
    """Name of the network that is trained with one α′."""
    return f"tm-spr-alpha-{alpha:g}"


def sweep_of(name: str) -> str:
    """Name of the sweep of a hypernetwork."""
    return f"{name}-dense"


def experiments(settings: Mapping, classical: Sequence[str], labelled: bool) -> Experiments:
    """The variants, and which experiment needs which.

    Parameters
    ----------
    settings : mapping
        The study's ``experiments.spr``.
    classical : sequence of str
        The study's methods that are not learned, the affine alignment among them: rows of the tables.
    labelled : bool
        Whether training scans have labels.

    Raises
    ------
    InputError
        The semi-supervised network is wanted without labels.
    """
    if settings["labels"] and not labelled:
        raise InputError(f"{WHERE}.labels: training scans without labels cannot teach it; set it to false")
    variants = _variants(settings)
    hyper = [name for name in (*OVER_LAMBDA, *OVER_PRIOR) if name in variants]
    compared = [name for name in TITLES if name in variants and name != GRID]
    alphas = [at_alpha(alpha) for alpha in settings["alphas"]]
    scored = {
        "table2": [*classical, *compared],
        "table6": [name for name in compared if name in (REFERENCE, "tm-spr-beta", *OVER_PRIOR, "hyper-tm-spr-all")],
        "fig13": [REFERENCE, "tm-spr-beta"],
    }
    searched = [name for name in variants if "tune" in variants[name]]
    trained = {
        "table5": [*searched, *hyper],
        "fig7": list(SEARCHED),
        "fig8": list(SEARCHED),
    }
    if GRID in variants:
        trained["table7"] = ["tm-spr-beta", GRID]
    sweeps = {sweep_of(name): [name] for name in hyper}
    varied = {sweep_of(name): ["lambda"] if name in OVER_LAMBDA else list(PRIORS["beta"]) for name in hyper}
    swept = {
        "table5": list(sweeps),
        "fig9": [sweep_of("hyper-tm-spr")],
        "fig20": [sweep_of(name) for name in OVER_LAMBDA],
    }
    if settings["labels"]:
        swept["fig10"] = [sweep_of("hyper-tm-spr-labels")]
    weighed = {"fig11": ["hyper-tm-spr"], "fig12": [*SEARCHED], "fig13": ["tm-spr-beta"]}
    if alphas:
        weighed["fig14"] = [*alphas, "tm-spr-beta"]
    return Experiments(
        variants,
        scored,
        trained,
        sweeps,
        varied,
        swept,
        sweep_splits=("validation",),
        drawn={"fig13": [REFERENCE, "tm-spr-beta"]},
        weighed=weighed,
    )


def _variants(settings: Mapping) -> dict[str, dict[str, Any]]:
    common, ranges = settings["settings"], settings["ranges"]
    hyper = {**common, **settings["hypernetwork"]}
    wide = {"architecture": "wide", "flow": "displacement", "flow_resolution": 1, "similarity": "lncc"}

    def search(*names: str, **more: Any) -> dict[str, Any]:
        return {"tune": {**settings["search"], "ranges": {name: ranges[name] for name in names}, **more}}

    over_prior = {"method": "hyperspr", **hyper, "ranges": {name: [0, ranges[name][1]] for name in PRIORS["beta"]}}
    found = {
        "voxelmorph-wide": {"method": "voxelmorph", **wide, "lambda": 1, **settings["voxelmorph"]},
        "hypermorph-wide": {"method": "hypermorph", **wide, **settings["voxelmorph"], **settings["hypermorph"]},
        "transmorph": {"method": "transmorph", "lambda": 1, **common},
        "transmorph-searched": {"method": "transmorph", **common, **search("lambda")},
        "hyper-transmorph": {"method": "hypertransmorph", **hyper},
        **{
            name: {"method": "spr", "prior": prior, **common, **search(*PRIORS[prior])}
            for name, prior in SEARCHED.items()
        },
        "hyper-tm-spr": over_prior,
    }
    if settings["labels"]:
        found["hyper-tm-spr-labels"] = {**over_prior, "gamma": 1}
    if settings["all_weights"] is not None:
        found["hyper-tm-spr-all"] = {**over_prior, "generated": EVERYTHING, **settings["all_weights"]}
    if settings["grid"]:
        grid = {"sampler": "grid", "trials": None, "pruning": False, "workers": settings["search"].get("workers", 4)}
        choices = {name: {"choices": values} for name, values in settings["grid"].items()}
        found[GRID] = {"method": "spr", "prior": "beta", **common, "tune": {**grid, "ranges": choices}}
    for alpha in settings["alphas"]:
        middle = sum(ranges["lambda_max"]) / 2
        found[at_alpha(alpha)] = {"method": "spr", "prior": "beta", "lambda_max": middle, "alpha": alpha, **common}
    return found
