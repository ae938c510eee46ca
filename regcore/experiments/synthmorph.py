"""Figures 6 to 8 and 11 to 14 and Table III of SynthMorph (Hoffmann et al., TMI 2022), on any cohort.

Figures 6, 7, 8, 11 and 12 and Table III compare the methods of the study, those of Section III-B where it has them;
Figures 13 and 14 train networks of their own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regcore.errors import InputError
from regcore.experiments import Experiments

#: The section of a study's file that says what is planned.
WHERE = "experiments.synthmorph"
#: Kinds of label maps, and what the paper calls SynthMorph with them.
KINDS = {"shapes": "sm-shapes", "cohort": "sm-brains"}
#: Methods whose networks are U-Nets, of which Fig. 12 looks at every convolution.
U_NETS = ("voxelmorph", "synthmorph")
#: Contrasts that differ in one number alone, by the name of their series: what that number is (Fig. 11).
SERIES = {"FLASH": "flip angle (degrees)", "MPRAGE": "inversion time (ms)"}


def swept(kind: str, setting: str, value: float) -> str:
    """Name of the network with one setting at another value."""
    return f"{KINDS[kind]}-{setting}-{value:g}"


def of_series(contrast: str) -> tuple[str, int] | None:
    """Series and number of a contrast such as ``FLASH-30``; None for any other."""
    found = re.fullmatch(r"(\w+)-(\d+)", contrast)
    return (found[1], int(found[2])) if found and found[1] in SERIES else None


def experiments(
    settings: Mapping, methods: Sequence[str], networks: Sequence[str], moving_contrasts: Iterable[str], labelled: bool
) -> Experiments:
    """The variants, and which experiment needs which.

    Parameters
    ----------
    settings : mapping
        The study's ``experiments.synthmorph``.
    methods : sequence of str
        The study's methods: the rows and curves to compare.
    networks : sequence of str
        Those of them whose networks are U-Nets.
    moving_contrasts : iterable of str
        Of the study's pairs.
    labelled : bool
        Whether training scans have labels; without them there is nothing to make images from but shapes.

    Raises
    ------
    InputError
        Networks are wanted from label maps that the training scans do not have.
    """
    kinds = settings["kinds"]
    if "cohort" in kinds and not labelled and (settings["sweeps"] or settings["lambda"]):
        raise InputError(f"{WHERE}.kinds: training scans without labels leave 'shapes' alone; take out 'cohort'")
    scored, features = {name: list(methods) for name in ("fig6", "fig7", "table3")}, {}
    found = [found for contrast in moving_contrasts if (found := of_series(contrast))]
    if found:
        scored["fig11"] = list(methods)
    if networks and max(Counter(series for series, _ in found).values(), default=0) > 1:
        features["fig12"] = list(networks)
    if settings["sweeps"]:
        scored["fig13"] = [
            swept(kind, setting, value)
            for kind in kinds
            for setting, values in settings["sweeps"].items()
            for value in values
        ]
    if settings["lambda"]:
        scored["fig14"] = [swept(kind, "lambda", value) for kind in kinds for value in settings["lambda"]]
    return Experiments(dict(_variants(settings)), scored, features=features, drawn={"fig6": list(methods)})


def _variants(settings: Mapping) -> Iterable[tuple[str, dict[str, Any]]]:
    for kind in settings["kinds"]:
        common = {"method": "synthmorph", **settings["settings"], "maps": kind}
        for setting, values in {**settings["sweeps"], "lambda": settings["lambda"]}.items():
            for value in values:
                yield swept(kind, setting, value), common | {setting: [value] if setting == "r_v" else value}
