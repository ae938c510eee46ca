"""Checks of a study before anything runs.  They need no torch, except to check the settings of methods."""

from collections.abc import Iterable, Sequence

import pandas as pd

from regcore.alignment.settings import HEED_MASKS
from regcore.cohort.labels import expand_codes, read_label_table
from regcore.cohort.landmarks import read_landmarks
from regcore.cohort.pair_pool import EligiblePairs, PooledPairs
from regcore.cohort.settings import LabelSettings
from regcore.cohort.table import Cohort
from regcore.errors import InputError, did_you_mean
from regcore.images.volume import read_grid
from regcore.models.model_json import ndim_of_model
from regcore.study.entry import Entry
from regcore.study.settings import StudySettings

#: The name of the true fields in a study's tables; it is not a method.
TRUTH = "truth"


def dimensions(study: StudySettings, cohort: Cohort) -> int:
    """Number of dimensions of a study's images: as configured, or from the header of the cohort's first scan.

    Parameters
    ----------
    study : StudySettings
        The settings of the study.
    cohort : Cohort
        Its scans.

    Returns
    -------
    int
        2 or 3.

    Raises
    ------
    InputError
        The first scan cannot be read.

    Examples
    --------
    >>> from regcore.study.checks import dimensions
    >>> from regcore.study.plan import plan_study
    >>> embedded = {"train": 2, "validation": 2, "test": 2, "ndim": 3}
    >>> plan = plan_study({"study": "small", "cohort": {"embedded": embedded}, "methods": {"affine": {}}}, check=False)
    >>> dimensions(plan.settings, plan.cohort)
    3
    """
    settings = study.cohort.embedded
    return settings.ndim if settings else read_grid(cohort.table["image"].iloc[0]).ndim


def check_entries(entries: Iterable[Entry], settings: bool) -> None:
    """Check the names, methods and ``start`` settings of a study's entries.

    Parameters
    ----------
    entries : iterable of Entry
        Entries that know each other as peers.
    settings : bool
        Also load every method and check its settings and searches, which takes seconds.

    Raises
    ------
    InputError
        Names the wrong key and the remedy.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.study.checks import check_entries
    >>> from regcore.study.entry import Entry
    >>> check_entries([Entry("smooth", {"method": "voxelmorph", "lambda": 2})], settings=False)
    >>> try:
    ...     check_entries([Entry("voxelmorf", {})], settings=False)
    ... except InputError as error:
    ...     print(error)
    methods.voxelmorf: unknown method 'voxelmorf'; did you mean 'voxelmorph'?
    """
    for entry in entries:
        if entry.name == TRUTH:
            raise InputError(f"methods: '{TRUTH}' is the name of the true field; call the method something else")
        _ = entry.info  # raises if there is no such method
        if settings:
            entry.check()
        entry.check_start(settings)


def check_models(entries: Iterable[Entry], ndim: int) -> None:
    """Raise :class:`InputError` if an entry uses a model for images of another dimension.

    Parameters
    ----------
    entries : iterable of Entry
        The entries of a study.
    ndim : {2, 3}
        Dimensions of its images.

    Raises
    ------
    InputError
        Names the key, and both dimensions.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.study.checks import check_models
    >>> from regcore.study.entry import Entry
    >>> entry = Entry("released", {"method": "pretrained", "model": "synthmorph-2d"})
    >>> check_models([entry], ndim=2)
    >>> try:
    ...     check_models([entry], ndim=3)
    ... except InputError as error:
    ...     print(error)
    methods.released.model: a 2-D model cannot register 3-D images
    """
    for entry in entries:
        folder = entry.existing_model
        if folder is not None and ndim_of_model(folder) != ndim:
            key = "model" if entry.info.pretrained else "start"
            raise InputError(f"{entry.where}.{key}: a {ndim_of_model(folder)}-D model cannot register {ndim}-D images")


def check_preprocess(study: StudySettings) -> None:
    """Raise :class:`InputError` if the alignment cannot do what the study asks of it.

    Parameters
    ----------
    study : StudySettings
        The settings of the study.

    Raises
    ------
    InputError
        Names the key, and the alignments that can.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.study.checks import check_preprocess
    >>> from regcore.study.plan import read_study
    >>> study = {"study": "small", "cohort": {"embedded": {}}, "methods": {"affine": {}}}
    >>> try:
    ...     check_preprocess(read_study({**study, "preprocess": {"cost_mask": True, "affine": "nmi"}}))
    ... except InputError as error:
    ...     print(error)
    preprocess.cost_mask: the alignment 'nmi' takes no masks; auto, rigid, similarity, affine, translation, ants do
    """
    settings = study.preprocess
    if settings.cost_mask and settings.affine in ("nmi", "mind"):
        raise InputError(
            f"preprocess.cost_mask: the alignment '{settings.affine}' takes no masks; {', '.join(HEED_MASKS)} do"
        )


def check_evaluation(study: StudySettings) -> None:
    """Raise :class:`InputError` if the evaluation names a method that the study does not have.

    Parameters
    ----------
    study : StudySettings
        The settings of the study.

    Raises
    ------
    InputError
        Names the key, and the nearest method.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.study.checks import check_evaluation
    >>> from regcore.study.plan import read_study
    >>> study = {"study": "small", "cohort": {"embedded": {}}, "methods": {"affine": {}}}
    >>> try:
    ...     check_evaluation(read_study({**study, "evaluation": {"reference": "afine"}}))
    ... except InputError as error:
    ...     print(error)
    evaluation.reference: no method 'afine'; did you mean 'affine'?
    """
    reference = study.evaluation.reference
    wanted = {"spotlight": study.evaluation.spotlight or [], "reference": [] if reference is None else [reference]}
    for key, named in wanted.items():
        for name in named:
            if name not in study.methods:
                raise InputError(f"evaluation.{key}: no method '{name}'{did_you_mean(name, study.methods)}")


def check_contrasts(pairings: Sequence[Sequence[str]], cohort: Cohort, where: str) -> None:
    """Raise :class:`InputError` if no training scan has one of the contrasts.

    Parameters
    ----------
    pairings : sequence of (str, str)
        Contrasts of the fixed and the moving scan.
    cohort : Cohort
        The scans.
    where : str
        The key to name in messages.

    Raises
    ------
    InputError
        Names the contrast, and the nearest one.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.table import checked_cohort
    >>> from regcore.errors import InputError
    >>> from regcore.study.checks import check_contrasts
    >>> row = {"subject": "a", "session": "1", "split": "train", "contrast": "T1w", "image": "a.nii.gz", "labels": ""}
    >>> cohort = checked_cohort(pd.DataFrame([row]), "cohort.tsv")
    >>> try:
    ...     check_contrasts([["T1w", "T2w"]], cohort, "pairs.contrasts")
    ... except InputError as error:
    ...     print(error)
    pairs.contrasts: no training scan has the contrast 'T2w'; did you mean 'T1w'?
    """
    known = set(cohort.table.loc[cohort.table["split"] == "train", "contrast"])
    for contrast in (contrast for pairing in pairings for contrast in pairing):
        if contrast not in known:
            raise InputError(f"{where}: no training scan has the contrast '{contrast}'{did_you_mean(contrast, known)}")


def check_labels(labels: LabelSettings) -> None:
    """Raise :class:`InputError` if the table or the codes of the labels to score cannot be read."""
    if labels.table is not None:
        read_label_table(labels.table)
    expand_codes(labels.exclude, "labels.exclude")
    for group, codes in labels.groups.items():
        expand_codes(codes, f"labels.groups.{group}")


def check_landmarks(cohort: Cohort, pairs: pd.DataFrame, ndim: int) -> None:
    """Raise :class:`InputError` if both scans of a pair have landmarks, and none has the same name in both."""
    for fixed, moving in zip(pairs["fixed"], pairs["moving"], strict=True):
        files = [cohort.file(scan, "landmarks") for scan in (fixed, moving)]
        if None not in files:
            names = [set(read_landmarks(str(path), ndim).index) for path in files]
            if not names[0] & names[1]:
                raise InputError(f"{files[0]} and {files[1]}: no landmark has the same name in both; rename them")


def check_reference(reference: str, cohort: Cohort, ndim: int) -> None:
    """Raise :class:`InputError` if the image that scans are aligned to is a file that does not fit."""
    if reference not in cohort.table.index and read_grid(reference).ndim != ndim:
        raise InputError(f"preprocess.reference: {reference} is not {ndim}-D, as the scans are")


def check_training_labels(cohort: Cohort, pairs: EligiblePairs | PooledPairs, where: str) -> None:
    """Raise :class:`InputError` if a scan of the training pairs has no labels.

    Parameters
    ----------
    cohort : Cohort
        The scans.
    pairs : EligiblePairs or PooledPairs
        The pairs that training draws from.
    where : str
        The key to name in messages.

    Raises
    ------
    InputError
        Names how many scans, and the first of them.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.pair_pool import EligiblePairs
    >>> from regcore.cohort.table import checked_cohort
    >>> from regcore.errors import InputError
    >>> from regcore.study.checks import check_training_labels
    >>> row = {"session": "1", "split": "train", "contrast": "T1w", "image": "a.nii.gz", "labels": ""}
    >>> rows = [{"subject": "a", **row}, {"subject": "b", **row, "image": "b.nii.gz"}]
    >>> cohort = checked_cohort(pd.DataFrame(rows), "cohort.tsv")
    >>> scans = list(cohort.table.index)
    >>> pairs = EligiblePairs(scans, scans, cohort.subjects(), kind="random")
    >>> try:
    ...     check_training_labels(cohort, pairs, "methods.voxelmorph")
    ... except InputError as error:
    ...     print(str(error).partition(" (")[0])
    methods.voxelmorph: this training needs labels, but 2 training scan(s) of cohort.tsv have none
    """
    missing = sorted(scan for scan in pairs.scans if cohort.file(scan, "labels") is None)
    if missing:
        raise InputError(
            f"{where}: this training needs labels, but {len(missing)} training scan(s) of {cohort.path} have none (the "
            f"first: '{missing[0]}'); add them, or choose settings without labels (no 'gamma', 'maps: shapes')"
        )
