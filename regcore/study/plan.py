"""The plan of a study: what it will do, from its configuration, before anything runs and without torch.

The workflow's rules, its scripts and the tests take everything they need from a :class:`Plan`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from regcore.cohort.pair_pool import EligiblePairs, PooledPairs
from regcore.cohort.pairs import contrasts_of, eligible_pairs, make_pairs
from regcore.cohort.table import Cohort, check_files, checked_cohort, read_cohort
from regcore.errors import InputError, did_you_mean
from regcore.experiments import Paper, Sweep
from regcore.experiments.planned import Study, planned_papers
from regcore.study.checks import (
    check_contrasts,
    check_entries,
    check_evaluation,
    check_labels,
    check_landmarks,
    check_models,
    check_preprocess,
    check_reference,
    check_training_labels,
    dimensions,
)
from regcore.study.entry import Entry
from regcore.study.imported import imported_fields
from regcore.study.layout import Layout
from regcore.study.parts import PAIRS_PER_PART, SCANS_PER_PART, part_of
from regcore.study.settings import CohortSettings, StudySettings
from regcore.synthesis import icbm152
from regcore.synthesis.settings import EmbeddedSettings
from regcore.training.batch_division import check_division

#: Key of a checked configuration for the methods that cannot run here, so that this is decided once.
UNAVAILABLE = "unavailable"


@dataclass(frozen=True, eq=False)
class Plan:
    """A checked study, as :func:`plan_study` makes it.

    Parameters
    ----------
    settings : StudySettings
        All settings, with defaults.
    cohort : Cohort
        The scans.
    folder : Path
        ``results/<study>``.
    entries : dict of str → Entry
        Everything to train and register with: the methods that can run here, and the variants of experiments.
    pairs : DataFrame
        The validation and test pairs: ``pair split fixed moving contrasts``.
    reference : str
        Name of the scan, or path of the image, to which scans are aligned.
    papers : dict of str → Paper
        The papers whose experiments the study asks for, by name.
    unavailable : dict of str → str
        Methods of the study that cannot run here → why, and what to do about it.

    Examples
    --------
    >>> from regcore.study.plan import plan_study
    >>> embedded = {"train": 2, "validation": 2, "test": 2}
    >>> plan = plan_study({"study": "small", "cohort": {"embedded": embedded}, "methods": {"affine": {}}}, check=False)
    >>> plan.reference, plan.ndim, plan.knows_truth
    ('icbm152_1_T1w', 2, True)
    >>> [plan.field("affine", pair) for pair in plan.pairs_of("test")["pair"]][0]
    'results/small/fields/affine/part-00/sub-005_1_T1w--sub-006_1_T1w.nii.gz'
    """

    settings: StudySettings
    cohort: Cohort
    folder: Path
    entries: dict[str, Entry]
    pairs: pd.DataFrame
    reference: str
    papers: dict[str, Paper] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """The study as plain values, with all defaults and what cannot run here. Planning it gives the same plan."""
        return {**self.settings.as_dict(), UNAVAILABLE: self.unavailable}

    @property
    def embedded(self) -> EmbeddedSettings | None:
        """Settings of the embedded cohort, or None for a cohort table."""
        return self.settings.cohort.embedded

    @cached_property
    def scans(self) -> list[str]:
        """The scans that occur in a pair and so are prepared, in the cohort's order."""
        used = {*self.pairs["fixed"], *self.pairs["moving"]}
        for entry in self.entries.values():
            if entry.training_pairs is not None:
                used |= entry.training_pairs.scans
        return [scan for scan in self.cohort.table.index if scan in used]

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(self.cohort.table["subject"]))

    @property
    def starts(self) -> dict[str, list[str]]:
        """First method → all methods that differ from it only in their random start; others are left out."""
        found: dict[str, list[str]] = {}
        for name in self.methods:
            if self.entries[name].learned:
                found.setdefault(self.entries[name].but_start, []).append(name)
        return {names[0]: names for names in found.values() if len(names) > 1}

    @property
    def spotlight(self) -> list[str]:
        """The methods whose best, median and worst pairs the report shows."""
        chosen = self.settings.evaluation.spotlight
        if chosen is None:
            return [name for name, method in self.methods.items() if method not in ("identity", "affine")]
        return [name for name in chosen if name in self.methods]

    @property
    def methods(self) -> dict[str, str]:
        """Name in the study → method, for the methods that the report compares."""
        return {name: self.entries[name].method for name in self.settings.methods if name not in self.unavailable}

    @property
    def searched_methods(self) -> list[str]:
        """The methods of the report whose hyperparameters are searched."""
        return [name for name in self.methods if self.entries[name].search is not None]

    @property
    def cell_searched_methods(self) -> list[str]:
        """The methods of the report whose cells or objective are searched."""
        return [name for name in self.methods if self.entries[name].cell_search is not None]

    @cached_property
    def sweeps(self) -> dict[str, Sweep]:
        """The sweeps of all papers, by name."""
        return {sweep.name: sweep for paper in self.papers.values() for sweep in paper.sweeps}

    @property
    def files(self) -> Layout:
        """Paths of the results."""
        return Layout(self.folder)

    def validation_pairs(self, name: str) -> pd.DataFrame:
        """The validation pairs on which a learned method's weights are chosen. They have its training's contrasts.

        Raises
        ------
        InputError
            There are no such pairs.
        """
        table, own = self.pairs_of("validation"), self.entries[name].training_contrasts
        if own is None:
            return table
        chosen = table[table["contrasts"].isin([contrasts_of(*pairing) for pairing in own])].reset_index(drop=True)
        if chosen.empty:
            raise InputError(
                f"methods.{name}.training_contrasts: no validation pair has these contrasts; add one of the pairings "
                "to 'pairs.contrasts'"
            )
        return chosen

    def pairs_of(self, split: str) -> pd.DataFrame:
        return self.pairs[self.pairs["split"] == split].reset_index(drop=True)

    def prepared(self, scan: str) -> str:
        """Path stem of a prepared scan."""
        return str(self.files.prepared(part_of(self.scans, scan, SCANS_PER_PART)) / scan)

    def field(self, name: str, pair: str) -> str:
        """Path of the field of a method (or ``TRUTH``) for a test pair."""
        part = part_of(list(self.pairs_of("test")["pair"]), pair, PAIRS_PER_PART)
        return str(self.files.fields(name, part) / f"{pair}.nii.gz")

    @property
    def ndim(self) -> int:
        return dimensions(self.settings, self.cohort)

    @property
    def knows_truth(self) -> bool:
        """Whether the cohort has the maps that give every test pair's true field."""
        pairs, table = self.pairs_of("test"), self.cohort.table
        return bool((table.loc[pairs["fixed"], "to_template"] != "").all()) and bool(
            (table.loc[pairs["moving"], "from_template"] != "").all()
        )

    @property
    def label_table(self) -> str | None:
        """Path of the table that names the labels."""
        return str(self.files.cohort("labels.tsv")) if self.embedded else self.settings.labels.table


def read_study(config: Mapping) -> StudySettings:
    """The settings of a study, read from YAML or from the configuration of a plan.

    Parameters
    ----------
    config : mapping
        Keys as in ``config/README.md``.

    Returns
    -------
    StudySettings
        With all defaults.

    Raises
    ------
    InputError
        Naming each key that is wrong, and the remedy.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.study.plan import read_study
    >>> config = {"study": "small", "cohort": {"embedded": {}}, "methods": {"affine": {}}}
    >>> read_study(config).registration.threads
    1
    >>> try:
    ...     read_study({**config, "sead": 3})
    ... except InputError as error:
    ...     print(error)
    configuration: unknown key 'sead'; did you mean 'seed'?
    """
    return StudySettings.read({key: value for key, value in config.items() if key != UNAVAILABLE}, "configuration")


def plan_study(config: Mapping, results: str = "results", check: bool = True) -> Plan:
    """Check a study's configuration, cohort and pairs, and plan it.

    Parameters
    ----------
    config : mapping
        As read from YAML, or from a plan. The plan's list of what cannot run here is then kept.
    results : str
        Folder of the results of all studies.
    check : bool
        Also check the settings of every method and the headers of every file. This takes seconds, and the jobs
        of a cluster, which plan the same study again, do not need it.

    Returns
    -------
    Plan
        Nothing is written.

    Raises
    ------
    InputError
        Names the wrong key, row or file and the remedy.

    Examples
    --------
    >>> from regcore.study.plan import plan_study
    >>> cohort = {"embedded": {"train": 4, "validation": 2, "test": 2}}
    >>> plan = plan_study({"study": "small", "cohort": cohort, "methods": {"syn": {}, "spr": {}}}, check=False)
    >>> plan.entries["spr"].training_pairs.different, len(plan.pairs_of("validation")), len(plan.pairs_of("test"))
    (12, 2, 2)
    """
    study, decided = read_study(config), config.get(UNAVAILABLE)
    folder = Path(results) / study.study
    cohort = _cohort(study.cohort, folder)
    files = Layout(folder)
    entries: dict[str, Entry] = {}  # filled in place: entries find each other in it
    entries |= {name: Entry(name, values, entries, files) for name, values in study.methods.items()}
    check_entries(entries.values(), settings=check)
    check_evaluation(study)
    check_preprocess(study)
    if check and not study.cohort.embedded:
        check_files(cohort)
        check_labels(study.labels)
    if check:
        check_models(entries.values(), dimensions(study, cohort))
    unavailable = _unavailable(entries, dimensions(study, cohort)) if decided is None else decided
    methods = _available(entries, unavailable)
    test = make_pairs(cohort, "test", study.pairs, study.seed)
    papers = planned_papers(study.experiments, Study(methods, cohort.table, test))
    variants = {name: Entry(name, values, entries, files) for name, values in _variants(papers, methods).items()}
    entries.clear()
    entries |= {**variants, **methods}
    check_entries(variants.values(), settings=check)
    check_entries(methods.values(), settings=False)  # again: some may start from a method that cannot run here
    _draw_training_pairs(study, entries, cohort, check)
    learned = [entry.name for entry in entries.values() if entry.learned]
    validation = [make_pairs(cohort, "validation", study.pairs, study.seed)] if learned else []
    scored = pd.concat([*validation, test], ignore_index=True)
    for scan in sorted(set(scored["fixed"]) | set(scored["moving"])):
        if cohort.file(scan, "labels") is None:
            raise InputError(
                f"{cohort.path}: scan '{scan}' has no labels; validation and test scans need labels for scoring"
            )
    for entry in methods.values():
        if entry.info.imported:
            entry.fields = imported_fields(entry, cohort, scored[scored["split"] == "test"])
    reference = _reference(study, cohort)
    if check and not study.cohort.embedded:
        ndim = dimensions(study, cohort)
        check_landmarks(cohort, test, ndim)
        check_reference(reference, cohort, ndim)
    plan = Plan(study, cohort, folder, entries, scored, reference, papers, unavailable)
    for name in learned:
        plan.validation_pairs(name)  # raises if there are none
    return plan


def _unavailable(entries: Mapping[str, Entry], ndim: int) -> dict[str, str]:
    """The methods that lack something they need, or cannot register such images."""
    reasons = {name: entry.unavailable(ndim) for name, entry in entries.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _available(entries: Mapping[str, Entry], unavailable: Mapping[str, str]) -> dict[str, Entry]:
    """The other methods; raises :class:`InputError` if there is none."""
    found = {name: entry for name, entry in entries.items() if name not in unavailable}
    if not found:
        raise InputError("methods: none can run here:\n" + "\n".join(f"{n}: {why}" for n, why in unavailable.items()))
    return found


def _cohort(cohort: CohortSettings, folder: Path) -> Cohort:
    settings = cohort.embedded
    if settings is None:
        return read_cohort(str(cohort.table))
    table = icbm152.cohort_table(settings)
    subjects = list(dict.fromkeys(table["subject"]))
    parts = [part_of(subjects, subject, SCANS_PER_PART) for subject in table["subject"]]
    for column in ("image", "labels", "landmarks", "to_template", "from_template"):
        table[column] = [f"{part}/{name}" for part, name in zip(parts, table[column], strict=True)]
    return checked_cohort(table, folder / "cohort" / "cohort.tsv")


def _variants(papers: Mapping[str, Paper], methods: Mapping[str, Entry]) -> dict[str, dict]:
    """The variants of all papers. A method with the name of a variant must equal it."""
    variants = {name: values for paper in papers.values() for name, values in paper.variants.items()}
    for name, entry in methods.items():
        if name in variants and variants[name] != entry.values:
            raise InputError(
                f"methods.{name}: an experiment of the study uses this name for a network; rename the method"
            )
    return {name: values for name, values in variants.items() if name not in methods}


def _draw_training_pairs(study: StudySettings, entries: Mapping[str, Entry], cohort: Cohort, check: bool) -> None:
    """Give each learned entry the pairs that its training draws from.

    With ``check``, also check that its batches can be made and that labels are there if training needs them.
    """
    drawn: dict[tuple[int | None, str], EligiblePairs | PooledPairs] = {}
    for entry in entries.values():
        if not entry.learned:
            continue
        count, contrasts, where = entry.training_subjects, entry.training_contrasts, entry.where
        key = count, str(contrasts)
        if key not in drawn:
            check_contrasts(contrasts or [], cohort, f"{where}.training_contrasts")
            wanted = study.pairs.with_values({"contrasts": contrasts} if contrasts else {})
            drawn[key] = eligible_pairs(cohort, "train", wanted, count, study.seed, f"{where}.training_subjects")
        entry.training_pairs = drawn[key]
        for method in entry.trained_with if check else []:
            check_division(method.settings, where=where)
            if method.observed is not None:
                check_training_labels(cohort, drawn[key], where)


def _reference(study: StudySettings, cohort: Cohort) -> str:
    wanted = study.preprocess.reference
    if wanted is None:
        contrast = study.pairs.pairings[0][0]
        return (cohort.scans("atlas", contrast) + cohort.scans("train", contrast) + list(cohort.table.index))[0]
    if wanted in cohort.table.index or wanted in set(cohort.table["subject"]):
        return cohort.scan_of(wanted)
    if Path(wanted).is_file():
        return wanted
    raise InputError(
        f"preprocess.reference: '{wanted}' is neither a file nor a subject of {cohort.path}"
        + did_you_mean(wanted, set(cohort.table["subject"]))
    )
