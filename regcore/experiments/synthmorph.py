"""Figures 6 to 8 and 11 to 14 and Table III of SynthMorph (Hoffmann et al., TMI 2022), on any cohort.

Figures 6, 7, 8, 11 and 12 and Table III compare the study's methods; include those of Section III-B.  Figures 13 and
14 train networks of their own.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from regcore.errors import InputError
from regcore.experiments import Experiment, Needs, Paper
from regcore.experiments.settings import SynthMorphExperiments
from regcore.synthesis.mr_contrast import of_series

#: The section of the study file.
WHERE = "experiments.synthmorph"
#: The module that draws the experiments.
DRAWN_BY = "regcore.papers.synthmorph.figures"
#: Kinds of label maps, and the paper's names of SynthMorph with them.
KINDS = {"shapes": "sm-shapes", "cohort": "sm-brains"}
#: Methods whose networks are U-Nets. Fig. 12 shows each of their convolutions.
U_NETS = ("voxelmorph", "synthmorph")
#: The alignment before registration.
START = "affine"
#: Series of contrasts that differ only in one number → the meaning of this number (Fig. 11).
SERIES = {"FLASH": "flip angle (degrees)", "MPRAGE": "inversion time (ms)"}


def swept(kind: str, setting: str, value: float) -> str:
    """Name of the network with one changed setting.

    Parameters
    ----------
    kind : {"shapes", "cohort"}
        The label maps of its training.
    setting : str
        The setting.
    value : float
        Its value.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.synthmorph import swept
    >>> swept("shapes", "b_K", 0.5)
    'sm-shapes-b_K-0.5'
    """
    return f"{KINDS[kind]}-{setting}-{value:g}"


def series_and_number(contrasts: Iterable[str]) -> dict[str, list[Any]]:
    """The series of contrasts that some contrasts belong to, and their numbers.

    Parameters
    ----------
    contrasts : iterable of str
        As in the cohort's table.

    Returns
    -------
    dict
        Columns ``series`` and ``number``; None for a contrast of no series.

    Examples
    --------
    >>> from regcore.experiments.synthmorph import series_and_number
    >>> series_and_number(["FLASH-20", "T1w"])
    {'series': ['FLASH', None], 'number': [20, None]}
    """
    found = [of_series(contrast) for contrast in contrasts]
    return {"series": [own and own[0] for own in found], "number": [own and own[1] for own in found]}


def series_of_pairs(pairs: pd.DataFrame, scans: pd.DataFrame) -> dict[str, list[tuple[str, list[str]]]]:
    """Series → fixed scan and moving scans, for each pair of subjects with at least two contrasts of the series.

    Moving scans are in falling order of their number. In both series the highest is the most T1-weighted one, to which
    the others are compared.

    Parameters
    ----------
    pairs, scans : DataFrame
        Pairs with ``fixed`` and ``moving``; the cohort's table.

    Returns
    -------
    dict of str → list of (str, list of str)

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.experiments.synthmorph import series_of_pairs
    >>> names = ["b_FLASH-2", "b_FLASH-40"]
    >>> scans = pd.DataFrame({"subject": "b", "contrast": ["FLASH-2", "FLASH-40"]}, index=names)
    >>> series_of_pairs(pd.DataFrame({"fixed": "a_T1w", "moving": names}), scans)
    {'FLASH': [('a_T1w', ['b_FLASH-40', 'b_FLASH-2'])]}
    """
    moving_scans = scans.loc[pairs["moving"]]
    table = pairs.assign(
        **series_and_number(moving_scans["contrast"]), subject=moving_scans["subject"].to_numpy()
    ).dropna(subset="series")
    groups: dict[str, list[tuple[str, list[str]]]] = {}
    for (series, fixed, _), rows in table.groupby(["series", "fixed", "subject"], sort=True):
        moving = rows.sort_values("number", ascending=False)["moving"].to_list()
        if len(moving) > 1:
            groups.setdefault(str(series), []).append((str(fixed), moving))
    return groups


def experiments(
    settings: SynthMorphExperiments,
    methods: Sequence[str],
    networks: Sequence[str],
    pairs: pd.DataFrame,
    scans: pd.DataFrame,
    labelled: bool,
) -> Paper:
    """The variants, and the needs of each table and figure.

    Parameters
    ----------
    settings : SynthMorphExperiments
        The section ``experiments.synthmorph`` of the study.
    methods : sequence of str
        The study's methods: the rows and curves to compare.
    networks : sequence of str
        The methods among them whose networks are U-Nets.
    pairs, scans : DataFrame
        Test pairs, and the cohort's table.
    labelled : bool
        Whether training scans have labels. Without labels, only shapes can be synthesised from.

    Returns
    -------
    Paper

    Raises
    ------
    InputError
        Networks are requested that need label maps, which the training scans do not have.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.experiments.settings import SynthMorphExperiments
    >>> from regcore.experiments.synthmorph import experiments
    >>> values = {"kinds": ["shapes"], "sweeps": {"b_K": [0.5, 1]}, "lambda": []}
    >>> settings = SynthMorphExperiments.read(values, "experiments.synthmorph")
    >>> scans = pd.DataFrame({"subject": ["a", "b"], "contrast": "T1w"}, index=["a", "b"])
    >>> pairs = pd.DataFrame({"fixed": ["a"], "moving": ["b"]})
    >>> paper = experiments(settings, ["affine"], [], pairs, scans, labelled=False)
    >>> paper["fig13"].needs.scores
    ['affine', 'sm-shapes-b_K-0.5', 'sm-shapes-b_K-1']
    """
    kinds = settings.kinds
    if "cohort" in kinds and not labelled and (settings.sweeps or settings.lambda_):
        raise InputError(f"{WHERE}.kinds: 'cohort' needs labels, which the training scans do not have; remove it")
    compared, start = list(methods), [START] if START in methods else []
    found = [
        Experiment("fig6", Needs(scores=compared, fields=compared), f"{DRAWN_BY}:of_pairs"),
        Experiment("fig7", Needs(scores=compared), f"{DRAWN_BY}:by_contrast"),
        Experiment("table3", Needs(scores=compared), f"{DRAWN_BY}:change_of_distance"),
    ]
    if any(of_series(contrast) for contrast in scans.loc[pairs["moving"], "contrast"]):
        found.append(Experiment("fig11", Needs(scores=compared), f"{DRAWN_BY}:along_series"))
    if networks and series_of_pairs(pairs, scans):
        found.append(Experiment("fig12", Needs(features=list(networks)), f"{DRAWN_BY}:by_layer"))
    if settings.sweeps:
        points = [(setting, value) for setting, values in settings.sweeps.items() for value in values]
        names = [swept(kind, setting, value) for kind in kinds for setting, value in points]
        found.append(Experiment("fig13", Needs(scores=[*start, *names]), f"{DRAWN_BY}:by_setting"))
    if settings.lambda_:
        names = [swept(kind, "lambda", value) for kind in kinds for value in settings.lambda_]
        found.append(Experiment("fig14", Needs(scores=[*start, *names]), f"{DRAWN_BY}:by_lambda"))
    return Paper(dict(_variants(settings)), found)


def _variants(settings: SynthMorphExperiments) -> Iterable[tuple[str, dict[str, Any]]]:
    for kind in settings.kinds:
        common = {"method": "synthmorph", **settings.settings, "maps": kind}
        points: dict[str, list[int | float]] = {**dict(settings.sweeps.items()), "lambda": settings.lambda_}
        for setting, values in points.items():
            for value in values:
                yield swept(kind, setting, value), common | {setting: [value] if setting == "r_v" else value}
