"""Tables 2 to 6 and Figures 7 to 13 and D.20 of TM-SPR (Chen et al., 2024), on any cohort.

All TransMorph networks of a study have the same size and training.  Those with hyperparameters are tuned by a search
(Section 3.7).  The study's classical tools are scored with them.  Additions to the paper: does tuning only λ do as
well, and what does a search save against a dense grid?
"""

from collections.abc import Sequence
from typing import Any

from regcore.errors import InputError
from regcore.experiments import Experiment, Needs, Paper, Sweep
from regcore.experiments.settings import SprExperiments
from regcore.methods.constants import PRIORS
from regcore.tuning.settings import SearchSettings

#: The section of the study file.
WHERE = "experiments.spr"
#: The modules that draw the experiments.
FIGURES, WEIGHTS = "regcore.papers.spr.figures", "regcore.papers.spr.weights"
#: Entry → its name in the paper; the last three are regcore's.
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
#: The backbone, to which others are compared.
REFERENCE = "transmorph"
SEARCHED = {"tm-spr-beta": "beta", "tm-spr-gaussian": "gaussian"}
#: Entries whose hypernetwork covers all values of its hyperparameters.
OVER_LAMBDA, OVER_PRIOR = ("hypermorph-wide", "hyper-transmorph"), ("hyper-tm-spr", "hyper-tm-spr-labels")
GRID = "tm-spr-grid"
#: All parts of TM-SPR with weights.
EVERYTHING = [
    *(f"network.{part}" for part in ("encoder", "up", "at_quarter", "looks", "decoders", "heads")),
    "head",
]


def at_alpha(alpha: float) -> str:
    """Name of the network trained with one α′.

    Parameters
    ----------
    alpha : float
        α′.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.spr import at_alpha
    >>> at_alpha(0.05)
    'tm-spr-alpha-0.05'
    """
    return f"tm-spr-alpha-{alpha:g}"


def sweep_of(name: str) -> str:
    """Name of the sweep of a hypernetwork.

    Parameters
    ----------
    name : str
        The hypernetwork's entry.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.spr import sweep_of
    >>> sweep_of("hyper-tm-spr")
    'hyper-tm-spr-dense'
    """
    return f"{name}-dense"


def experiments(settings: SprExperiments, classical: Sequence[str], labelled: bool) -> Paper:
    """The variants, and the needs of each table and figure.

    Parameters
    ----------
    settings : SprExperiments
        The section ``experiments.spr`` of the study.
    classical : sequence of str
        The study's methods without learning, including the affine alignment: rows of the tables.
    labelled : bool
        Whether training scans have labels.

    Returns
    -------
    Paper

    Raises
    ------
    InputError
        The semi-supervised network is requested without labels.

    Examples
    --------
    >>> from regcore.experiments.settings import SprExperiments
    >>> from regcore.experiments.spr import experiments
    >>> paper = experiments(SprExperiments(labels=False), classical=["affine"], labelled=False)
    >>> paper["fig7"].needs.models
    ['tm-spr-beta', 'tm-spr-gaussian']
    """
    if settings.labels and not labelled:
        raise InputError(f"{WHERE}.labels: it needs labels, which the training scans do not have; set it to false")
    variants = _variants(settings)
    hyper = [name for name in (*OVER_LAMBDA, *OVER_PRIOR) if name in variants]
    compared = [name for name in TITLES if name in variants and name != GRID]
    searched, beside = [name for name in variants if "tune" in variants[name]], [REFERENCE, "tm-spr-beta"]
    amortised = [name for name in compared if name in (*beside, *OVER_PRIOR, "hyper-tm-spr-all")]
    found = [
        Experiment("table2", Needs(scores=[*classical, *compared]), f"{FIGURES}:overlap_and_folds"),
        Experiment("table5", Needs(models=[*searched, *hyper], sweeps=list(map(sweep_of, hyper))), f"{FIGURES}:optima"),
        Experiment("table6", Needs(scores=amortised), f"{FIGURES}:amortised"),
        Experiment("fig7", Needs(models=list(SEARCHED)), f"{FIGURES}:surfaces"),
        Experiment("fig8", Needs(models=list(SEARCHED)), f"{FIGURES}:importances"),
        _landscape("fig9", "hyper-tm-spr"),
        Experiment("fig11", Needs(weights=["hyper-tm-spr"]), f"{WEIGHTS}:over_two"),
        Experiment("fig12", Needs(weights=[*SEARCHED]), f"{WEIGHTS}:beside_field", {"titles": TITLES}),
        Experiment(
            "fig13",
            Needs(scores=beside, weights=["tm-spr-beta"], fields=beside),
            f"{WEIGHTS}:against_invariant",
            {"plain": REFERENCE, "titles": TITLES},
        ),
        Experiment("fig20", Needs(sweeps=list(map(sweep_of, OVER_LAMBDA))), f"{FIGURES}:dice_by_lambda"),
    ]
    if settings.labels:
        found.append(_landscape("fig10", "hyper-tm-spr-labels"))
    if GRID in variants:
        found.append(Experiment("table7", Needs(models=["tm-spr-beta", GRID]), f"{FIGURES}:search_and_grid"))
    if settings.alphas:
        alphas = [*map(at_alpha, settings.alphas), "tm-spr-beta"]
        found.append(Experiment("fig14", Needs(weights=alphas), f"{WEIGHTS}:by_alpha"))
    return Paper(variants, found, [_sweep(name) for name in hyper])


def _landscape(name: str, entry: str) -> Experiment:
    return Experiment(name, Needs(sweeps=[sweep_of(entry)]), f"{FIGURES}:landscape", {"name": entry})


def _sweep(name: str) -> Sweep:
    """The sweep of a hypernetwork, whose hyperparameters are chosen on the validation pairs."""
    return Sweep(sweep_of(name), [name], ["lambda"] if name in OVER_LAMBDA else list(PRIORS["beta"]), ("validation",))


def _variants(settings: SprExperiments) -> dict[str, dict[str, Any]]:
    common, ranges = settings.settings, settings.ranges
    hyper = {**common, **settings.hypernetwork}
    wide = {"architecture": "wide", "flow": "displacement", "flow_resolution": 1, "similarity": "lncc"}

    def search(*names: str, **more: Any) -> dict[str, Any]:
        return {"tune": {**settings.search, "ranges": {name: ranges.value(name) for name in names}, **more}}

    over = {name: [0, ranges.value(name)[1]] for name in PRIORS["beta"]}
    over_prior = {"method": "hyperspr", **hyper, "ranges": over}
    found = {
        "voxelmorph-wide": {"method": "voxelmorph", **wide, "lambda": 1, **settings.voxelmorph},
        "hypermorph-wide": {"method": "hypermorph", **wide, **settings.voxelmorph, **settings.hypermorph},
        "transmorph": {"method": "transmorph", "lambda": 1, **common},
        "transmorph-searched": {"method": "transmorph", **common, **search("lambda")},
        "hyper-transmorph": {"method": "hypertransmorph", **hyper},
        **{
            name: {"method": "spr", "prior": prior, **common, **search(*PRIORS[prior])}
            for name, prior in SEARCHED.items()
        },
        "hyper-tm-spr": over_prior,
    }
    if settings.labels:
        found["hyper-tm-spr-labels"] = {**over_prior, "gamma": 1}
    if settings.all_weights is not None:
        found["hyper-tm-spr-all"] = {**over_prior, "generated": EVERYTHING, **settings.all_weights}
    if settings.grid:
        choices = {name: {"choices": values} for name, values in settings.grid.as_dict().items()}
        workers = SearchSettings.read({**settings.search, "ranges": choices}, f"{WHERE}.search").workers
        grid = {"sampler": "grid", "trials": None, "pruning": False, "workers": workers}
        found[GRID] = {"method": "spr", "prior": "beta", **common, "tune": {**grid, "ranges": choices}}
    for alpha in settings.alphas:
        middle = sum(ranges.lambda_max) / 2
        found[at_alpha(alpha)] = {"method": "spr", "prior": "beta", "lambda_max": middle, "alpha": alpha, **common}
    return found
