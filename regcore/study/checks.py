"""What is checked of a study before anything runs; without torch, except where settings are looked at."""

from collections.abc import Iterable, Sequence

from regcore.cohort.pair_pool import EligiblePairs, PooledPairs
from regcore.cohort.table import Cohort
from regcore.errors import InputError, did_you_mean
from regcore.images.volume import read_grid
from regcore.study.entry import Entry
from regcore.study.settings import StudySettings

#: The entry of a study's tables that is not a method but what is known to be true.
TRUTH = "truth"


def dimensions(study: StudySettings, cohort: Cohort) -> int:
    """Of a study's images: as configured, or as in the first header of the cohort."""
    settings = study.cohort.embedded
    return settings.ndim if settings else read_grid(cohort.table["image"].iloc[0]).ndim


def check_entries(entries: Iterable[Entry], settings: bool) -> None:
    """Check names, methods and starts of a study's entries.

    Parameters
    ----------
    settings : bool
        Also load every method to check its settings and searches, which takes seconds.

    Raises
    ------
    InputError
        Naming the key that is wrong, and the remedy.
    """
    for entry in entries:
        if entry.name == TRUTH:
            raise InputError(f"methods: '{TRUTH}' is the name of the true field; call the method something else")
        _ = entry.info  # raises where there is no such method
        if settings:
            entry.check()
        entry.check_start(settings)


def check_models(entries: Iterable[Entry], ndim: int) -> None:
    """Raise :class:`InputError` where an entry takes over a model of images of other dimensions."""
    for entry in entries:
        if entry.info.pretrained and entry.made.ndim != ndim:
            raise InputError(f"{entry.where}.model: a {entry.made.ndim}-D model cannot register {ndim}-D images")


def check_evaluation(study: StudySettings) -> None:
    """Raise :class:`InputError` where a study's evaluation names a method that it does not have."""
    reference = study.evaluation.reference
    wanted = {"spotlight": study.evaluation.spotlight or [], "reference": [] if reference is None else [reference]}
    for key, named in wanted.items():
        for name in named:
            if name not in study.methods:
                raise InputError(f"evaluation.{key}: no method '{name}'{did_you_mean(name, study.methods)}")


def check_contrasts(pairings: Sequence[Sequence[str]], cohort: Cohort, where: str) -> None:
    """Raise :class:`InputError` where no training scan has one of the contrasts."""
    known = set(cohort.table.loc[cohort.table["split"] == "train", "contrast"])
    for contrast in (contrast for pairing in pairings for contrast in pairing):
        if contrast not in known:
            raise InputError(f"{where}: no training scan has the contrast '{contrast}'{did_you_mean(contrast, known)}")


def check_training_labels(cohort: Cohort, pairs: EligiblePairs | PooledPairs, where: str) -> None:
    """Raise :class:`InputError` where a scan of training pairs has no labels."""
    missing = sorted(scan for scan in pairs.scans if cohort.file(scan, "labels") is None)
    if missing:
        raise InputError(
            f"{where}: its training looks at labels, but {len(missing)} training scan(s) of {cohort.path} have none "
            f"(the first: '{missing[0]}'); add them, or set what needs none (no 'gamma', 'maps: shapes')"
        )
