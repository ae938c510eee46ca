"""Tables I–IV and Figures 5, 7, 8 and 9 of VoxelMorph (Balakrishnan et al., TMI 2019), on any cohort.

Which of them is atlas-based and which between subjects (Table III) follows from the study's pairs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from regcore.experiments import Experiment, Needs, Paper
from regcore.experiments.settings import VoxelMorphExperiments
from regcore.methods.constants import LABELS_ALONE

#: The module that draws it.
DRAWN_BY = "regcore.papers.voxelmorph.figures"
#: Names of the paper: what the two losses are called there, and which labels training sees (Fig. 9 a–d).
LOSSES = {"mse": "MSE", "lncc": "CC"}
SCENARIOS = {"one": "one structure", "half": "half the structures", "all": "all structures", "groups": "coarse labels"}


def base(similarity: str, width: int = 1) -> str:
    """Name of the plain network with one loss; ``width`` 2 is the ×2 of Table III."""
    return f"vm-{similarity}" + (f"-x{width}" if width > 1 else "")


def refined(name: str) -> str:
    return f"{name}-inst"


def with_lambda(similarity: str, value: float) -> str:
    return f"{base(similarity)}-lambda-{value:g}"


def with_subjects(count: int) -> str:
    return f"{base('mse')}-n{count}"


def with_gamma(scenario: str, fold: int, gamma: float | str) -> str:
    value = gamma if gamma == LABELS_ALONE else f"{gamma:g}"
    return f"{base('mse')}-{scenario}{fold}-gamma-{value}"


def folds_of(settings: VoxelMorphExperiments, scenario: str) -> range:
    """The draws of the labels that training sees."""
    return range(1, 1 + settings.folds.of(scenario))


def sizes(settings: VoxelMorphExperiments, subjects: int) -> list[int]:
    """Numbers of training subjects below that of the cohort, ascending."""
    return sorted({count for count in settings.training_subjects if count < subjects})


def experiments(settings: VoxelMorphExperiments, classical: Sequence[str], subjects: int, labelled: bool) -> Paper:
    """The variants, and what each table and figure needs.

    Parameters
    ----------
    settings : VoxelMorphExperiments
    classical : sequence of str
        The study's methods that need no training: the rows and lines to compare with.
    subjects : int
        Training subjects of the cohort.
    labelled : bool
        Whether training scans have labels; without them there is nothing to vary γ on.
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
