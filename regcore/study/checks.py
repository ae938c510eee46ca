"""What is checked of a study's methods before anything runs; without torch, except where settings are looked at."""

from collections.abc import Mapping, Sequence

from regcore.autoreg.search import cell_search, has_search
from regcore.cohort.pair_pool import EligiblePairs, PooledPairs
from regcore.cohort.table import Cohort
from regcore.errors import InputError, did_you_mean
from regcore.images.volume import read_grid
from regcore.methods import entry, make_entry, method_of
from regcore.study.settings import StudySettings
from regcore.tuning.search import check_search, is_tuned

#: The entry of a study's tables that is not a method but what is known to be true.
TRUTH = "truth"


def dimensions(study: StudySettings, cohort: Cohort) -> int:
    """Of a study's images: as configured, or as in the first header of the cohort."""
    settings = study.cohort.embedded
    return settings.ndim if settings else read_grid(cohort.table["image"].iloc[0]).ndim


def check_methods(study: StudySettings, entries: Mapping[str, dict], cohort: Cohort, settings: bool) -> None:
    """Check names, methods and starts of a study's entries, and the methods that its evaluation names.

    Parameters
    ----------
    settings : bool
        Also load every method to check its settings and searches, which takes seconds.

    Raises
    ------
    InputError
        Naming the key that is wrong, and the remedy.
    """
    for name, values in entries.items():
        if name == TRUTH:
            raise InputError(f"methods: '{TRUTH}' is the name of the true field; call the method something else")
        where = f"methods.{name}"
        method = method_of(name, values)
        entry(method, where)
        if settings:
            made = make_entry(name, values)
            if entry(method).pretrained and made.dimensions != (ndim := dimensions(study, cohort)):
                raise InputError(f"{where}.model: a {made.dimensions}-D model cannot register {ndim}-D images")
            if is_tuned(values):
                check_search(name, values)
            if has_search(values):
                cell_search(name, entries)
        if entry(method).refines:
            _check_start(values.get("start"), entries, where, settings)
    reference = study.evaluation.reference
    for key, named in (
        ("spotlight", study.evaluation.spotlight or []),
        ("reference", [reference] if reference else []),
    ):
        for name in named:
            if name not in study.methods:
                raise InputError(f"evaluation.{key}: no method '{name}'{did_you_mean(name, study.methods)}")


def _check_start(start: str | None, entries: Mapping[str, dict], where: str, settings: bool) -> None:
    learned = [name for name, values in entries.items() if entry(method_of(name, values)).learned]
    if start not in learned:
        raise InputError(
            f"{where}: 'start' must be a learned method of the study, not {start!r}{did_you_mean(str(start), learned)}"
        )
    if settings:
        from regcore.methods.refine import require_comparing_images

        made = make_entry(start, entries[start])
        require_comparing_images(made, f"{where}.start: {start}")


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
