"""Tables I–IV and Figures 5, 7, 8 and 9 of VoxelMorph (Balakrishnan et al., TMI 2019), on any cohort.

Whether they are atlas-based or between subjects (Table III) follows from the study's pairs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from regcore.experiments import Experiment, Needs, Paper
from regcore.experiments.settings import VoxelMorphExperiments
from regcore.methods.constants import LABELS_ALONE

#: The module that draws the experiments.
DRAWN_BY = "regcore.papers.voxelmorph.figures"
#: The paper's names of the two losses, and of the labels used in training (Fig. 9 a–d).
LOSSES = {"mse": "MSE", "lncc": "CC"}
SCENARIOS = {"one": "one structure", "half": "half the structures", "all": "all structures", "groups": "coarse labels"}


def base(similarity: str, width: int = 1) -> str:
    """Name of the plain network with one loss.

    Parameters
    ----------
    similarity : {"mse", "lncc"}
        The loss.
    width : int
        2 is the ×2 of the paper's third table.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.voxelmorph import base
    >>> base("mse"), base("lncc", width=2)
    ('vm-mse', 'vm-lncc-x2')
    """
    return f"vm-{similarity}" + (f"-x{width}" if width > 1 else "")


def refined(name: str) -> str:
    """Name of a network with instance-specific optimisation.

    Parameters
    ----------
    name : str
        Name of the network.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.voxelmorph import base, refined
    >>> refined(base("mse"))
    'vm-mse-inst'
    """
    return f"{name}-inst"


def with_lambda(similarity: str, value: float) -> str:
    """Name of the network trained with one λ.

    Parameters
    ----------
    similarity : {"mse", "lncc"}
        The loss.
    value : float
        λ.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.voxelmorph import with_lambda
    >>> with_lambda("lncc", 0.5)
    'vm-lncc-lambda-0.5'
    """
    return f"{base(similarity)}-lambda-{value:g}"


def with_subjects(count: int) -> str:
    """Name of the network trained on some of the subjects.

    Parameters
    ----------
    count : int
        Number of training subjects.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.voxelmorph import with_subjects
    >>> with_subjects(10)
    'vm-mse-n10'
    """
    return f"{base('mse')}-n{count}"


def with_gamma(scenario: str, fold: int, gamma: float | str) -> str:
    """Name of the network trained with labels.

    Parameters
    ----------
    scenario : str
        The labels of its training, a key of ``SCENARIOS``.
    fold : int
        Number of the draw of these labels, from 1.
    gamma : float or "infinity"
        γ.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.voxelmorph import with_gamma
    >>> with_gamma("half", fold=2, gamma=0.01)
    'vm-mse-half2-gamma-0.01'
    """
    value = gamma if gamma == LABELS_ALONE else f"{gamma:g}"
    return f"{base('mse')}-{scenario}{fold}-gamma-{value}"


def folds_of(settings: VoxelMorphExperiments, scenario: str) -> range:
    """The draws of the labels used in training.

    Parameters
    ----------
    settings : VoxelMorphExperiments
        ``folds``.
    scenario : str
        A key of ``SCENARIOS``.

    Returns
    -------
    range
        Numbers from 1; only one draw where nothing is drawn.

    Examples
    --------
    >>> from regcore.experiments.settings import VoxelMorphExperiments
    >>> from regcore.experiments.voxelmorph import folds_of
    >>> list(folds_of(VoxelMorphExperiments(), "one")), list(folds_of(VoxelMorphExperiments(), "all"))
    ([1, 2, 3, 4], [1])
    """
    return range(1, 1 + settings.folds.of(scenario))


def sizes(settings: VoxelMorphExperiments, subjects: int) -> list[int]:
    """Numbers of training subjects smaller than the cohort, ascending.

    Parameters
    ----------
    settings : VoxelMorphExperiments
        ``training_subjects``.
    subjects : int
        Number of training subjects in the cohort.

    Returns
    -------
    list of int

    Examples
    --------
    >>> from regcore.experiments.settings import VoxelMorphExperiments
    >>> from regcore.experiments.voxelmorph import sizes
    >>> sizes(VoxelMorphExperiments(training_subjects=[100, 2, 10]), subjects=40)
    [2, 10]
    """
    return sorted({count for count in settings.training_subjects if count < subjects})


def experiments(settings: VoxelMorphExperiments, classical: Sequence[str], subjects: int, labelled: bool) -> Paper:
    """The variants, and the needs of each table and figure.

    Parameters
    ----------
    settings : VoxelMorphExperiments
        The section ``experiments.voxelmorph`` of the study.
    classical : sequence of str
        The study's methods without training: rows and lines to compare with.
    subjects : int
        Number of training subjects in the cohort.
    labelled : bool
        Whether training scans have labels, without which γ cannot be varied.

    Returns
    -------
    Paper

    Examples
    --------
    >>> from regcore.experiments.settings import VoxelMorphExperiments
    >>> from regcore.experiments.voxelmorph import experiments
    >>> paper = experiments(VoxelMorphExperiments(), classical=["affine", "syn"], subjects=100, labelled=False)
    >>> paper["table2"].needs.scores
    ['affine', 'syn', 'vm-mse', 'vm-mse-inst', 'vm-lncc', 'vm-lncc-inst']
    """
    networks = [base(similarity) for similarity in LOSSES]
    wide = [base(similarity, 2) for similarity in LOSSES]
    lambdas = {s: [with_lambda(s, value) for value in settings.lambda_.value(s)] for s in LOSSES}
    by_size = [with_subjects(count) for count in sizes(settings, subjects)] + [base("mse")]
    plain = [*classical, *networks]

    def table(name: str, scores: list[str]) -> Experiment:
        return Experiment(name, Needs(scores=scores), f"{DRAWN_BY}:methods_table")

    found = [
        table("table1", plain),
        table("table2", [*classical, *_and_refined(networks)]),
        table("table3", [*plain, *_and_refined(wide)]),
        Experiment("fig5", Needs(scores=plain), f"{DRAWN_BY}:boxes_by_structure"),
        Experiment("fig7", Needs(models=[*lambdas["mse"], *lambdas["lncc"]]), f"{DRAWN_BY}:dice_by_lambda"),
        Experiment("fig8", Needs(scores=_and_refined(by_size), models=by_size), f"{DRAWN_BY}:dice_by_subjects"),
    ]
    if labelled:
        supervised = Needs(scores=[*classical, base("mse"), *_gamma_names(settings)])
        found += [
            Experiment("table4", supervised, f"{DRAWN_BY}:folds_by_gamma"),
            Experiment("fig9", supervised, f"{DRAWN_BY}:dice_by_gamma", {"references": list(classical)}),
        ]
    return Paper(dict(_variants(settings, subjects, labelled)), found)


def _and_refined(names: Iterable[str]) -> list[str]:
    return [entry for name in names for entry in (name, refined(name))]


def _gamma_names(settings: VoxelMorphExperiments) -> list[str]:
    return [
        with_gamma(scenario, fold, gamma)
        for scenario in SCENARIOS
        for fold in folds_of(settings, scenario)
        for gamma in settings.gamma
    ]


def _variants(settings: VoxelMorphExperiments, subjects: int, labelled: bool) -> Iterable[tuple[str, dict[str, Any]]]:
    for similarity in LOSSES:
        own = {
            "method": "voxelmorph",
            **settings.settings,
            "similarity": similarity,
            "lambda": settings.chosen_lambda.value(similarity),
        }
        for width in (1, 2):
            name = base(similarity, width)
            yield name, own | {"width": width * own.get("width", 1)}
            yield refined(name), _refine(settings, name)
        for value in settings.lambda_.value(similarity):
            yield with_lambda(similarity, value), own | {"lambda": value}
    own = own | {"similarity": "mse", "lambda": settings.chosen_lambda.mse}
    for count in sizes(settings, subjects):
        yield with_subjects(count), own | {"training_subjects": count}
        yield refined(with_subjects(count)), _refine(settings, with_subjects(count))
    if not labelled:
        return
    for scenario in SCENARIOS:
        for fold in folds_of(settings, scenario):
            for gamma in settings.gamma:
                seen = {"observed": scenario, "observed_draw": fold, "gamma": gamma}
                yield with_gamma(scenario, fold, gamma), own | seen


def _refine(settings: VoxelMorphExperiments, start: str) -> dict[str, Any]:
    return {"method": "refine", **settings.refine, "start": start}
