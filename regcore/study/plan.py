"""What a study will do, worked out from its configuration before anything runs and without torch.

The workflow's rules take everything they need from a :class:`Plan`; scripts and tests can make one too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from regcore.autoreg.search import CellSearch, cell_search, has_search
from regcore.cohort.pair_pool import EligiblePairs, PooledPairs
from regcore.cohort.pairs import contrasts_of, eligible_pairs, make_pairs, read_pairs
from regcore.cohort.table import Cohort, check_files, checked_cohort, read_cohort
from regcore.errors import InputError, did_you_mean
from regcore.experiments import Experiments
from regcore.experiments.planned import planned_experiments
from regcore.methods import entry, make_entry, method_of
from regcore.settings.fingerprint import fingerprint
from regcore.study.checks import check_contrasts, check_methods, check_training_labels, dimensions
from regcore.study.settings import CohortSettings, StudySettings
from regcore.synthesis import icbm152
from regcore.synthesis.settings import EmbeddedSettings
from regcore.training.batch_division import check_division
from regcore.tuning.search import Search, ends, is_tuned, search_of

#: Work is cut into parts of this size: large enough that starting Python does not matter, small enough
#: that a killed job costs little and a cluster has something to share.
SCANS_PER_PART, PAIRS_PER_PART = 32, 16

#: Key under which a checked configuration carries what cannot run here, so that it is decided once.
UNAVAILABLE = "unavailable"


@dataclass(frozen=True, eq=False)
class Plan:
    """A checked study.

    Parameters
    ----------
    settings : StudySettings
    cohort : Cohort
    folder : Path
        ``results/<study>``.
    training_pairs : dict of str → EligiblePairs or PooledPairs
        For each learned method of the study, the pairs that its training draws from.
    pairs : DataFrame
        The validation and test pairs: ``pair split fixed moving contrasts``.
    reference : str
        Name of the scan, or path of the image, that scans are aligned to.
    experiments : dict of str → Experiments
        By paper.
    unavailable : dict of str → str
        Methods of the study that cannot run here, and why and what to do about it.
    imported : dict of str → dict of str → str
        For each method whose fields were made elsewhere, test pair → path of its field, where there is one.
    """

    settings: StudySettings
    cohort: Cohort
    folder: Path
    training_pairs: dict[str, EligiblePairs | PooledPairs]
    pairs: pd.DataFrame
    reference: str
    experiments: dict[str, Experiments] = field(default_factory=dict)
    imported: dict[str, dict[str, str]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """The study as plain values, with every default and what cannot run here: it plans the same study anew."""
        return {**self.settings.as_dict(), UNAVAILABLE: self.unavailable}

    @property
    def embedded(self) -> EmbeddedSettings | None:
        """Settings of the embedded cohort, or None for a cohort table."""
        return self.settings.cohort.embedded

    @cached_property
    def scans(self) -> list[str]:
        """The scans that occur in a pair, in the cohort's order: these are prepared."""
        used = {*self.pairs["fixed"], *self.pairs["moving"]}
        for pairs in self.training_pairs.values():
            used |= pairs.scans
        return [scan for scan in self.cohort.table.index if scan in used]

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(self.cohort.table["subject"]))

    @property
    def starts(self) -> dict[str, list[str]]:
        """First method → all methods that differ from it in their random start alone; none that has one start."""
        found: dict[str, list[str]] = {}
        for name in self.methods:
            if self.learned(name):
                own = self.entries[name].items()
                values = {key: value for key, value in own if key not in ("method", "replicate")}
                found.setdefault(fingerprint(self.method_of(name), values), []).append(name)
        return {names[0]: names for names in found.values() if len(names) > 1}

    @property
    def spotlight(self) -> list[str]:
        """The methods whose pairs the report shows."""
        chosen = self.settings.evaluation.spotlight
        if chosen is None:
            return [name for name, method in self.methods.items() if method not in ("identity", "affine")]
        return [name for name in chosen if name in self.methods]

    @property
    def methods(self) -> dict[str, str]:
        """Name in the study → method, of the methods that the report compares."""
        return {name: self.method_of(name) for name in self.settings.methods if name not in self.unavailable}

    @cached_property
    def entries(self) -> dict[str, dict]:
        """Name → settings of all that can be trained and registered with: methods, and variants of experiments."""
        return _entries(_available(self.settings.methods, self.unavailable), self.experiments)

    @property
    def sweeps(self) -> dict[str, list[str]]:
        """Name → entries that are scored together at many hyperparameters."""
        return {name: entries for paper in self.experiments.values() for name, entries in paper.sweeps.items()}

    def paper_of(self, sweep: str) -> Experiments:
        """The experiments that a sweep belongs to."""
        return next(paper for paper in self.experiments.values() if sweep in paper.sweeps)

    def hyperparameters(self, sweep: str) -> list[str]:
        """The hyperparameters that a sweep's networks differ in."""
        return self.paper_of(sweep).hyperparameters[sweep]

    def method_of(self, name: str) -> str:
        """The method behind an entry."""
        return method_of(name, self.entries[name])

    def learned(self, name: str) -> bool:
        return entry(self.method_of(name)).learned

    def model_of(self, name: str) -> str | None:
        """The entry whose trained model an entry registers with: its own, or the one it refines."""
        if entry(self.method_of(name)).refines:
            return self.entries[name]["start"]
        return name if self.learned(name) else None

    def model_folder(self, name: str) -> str | None:
        """Folder of the model that an entry registers with, of this study or another; None where it has none."""
        if entry(self.method_of(name)).pretrained:
            return str(make_entry(name, self.entries[name]).folder)
        model = self.model_of(name)
        return model and str(self.folder / "models" / model)

    @cached_property
    def searches(self) -> dict[str, Search]:
        """Entry → the search for its hyperparameters, of those that have one."""
        return {name: search_of(name, values) for name, values in self.entries.items() if is_tuned(values)}

    @property
    def searched_methods(self) -> list[str]:
        """The methods that the report compares and whose hyperparameters are searched."""
        return [name for name in self.methods if name in self.searches]

    def search_folder(self, name: str) -> Path:
        """Where an entry's search keeps its journal and its trials."""
        return self.folder / "tuning" / name

    @cached_property
    def cell_searches(self) -> dict[str, CellSearch]:
        """Entry → the search for its cells and objective, of those that have one."""
        return {name: cell_search(name, self.entries) for name, values in self.entries.items() if has_search(values)}

    @property
    def cell_searched_methods(self) -> list[str]:
        """The methods that the report compares and whose cells or objective are searched."""
        return [name for name in self.methods if name in self.cell_searches]

    def architecture_folder(self, name: str) -> Path:
        """Where a search for cells leaves what it found."""
        return self.folder / "architectures" / name

    def validation_pairs(self, name: str) -> pd.DataFrame:
        """The validation pairs that a learned method's weights are chosen on: of its training's contrasts.

        Raises
        ------
        InputError
            There are none of them.
        """
        table, own = self.pairs_of("validation"), self.entries[name].get("training_contrasts")
        if own is None:
            return table
        chosen = table[table["contrasts"].isin([contrasts_of(*pairing) for pairing in own])].reset_index(drop=True)
        if chosen.empty:
            raise InputError(
                f"methods.{name}.training_contrasts: no validation pair is of these contrasts; add one of the pairings "
                "to 'pairs.contrasts'"
            )
        return chosen

    def pairs_of(self, split: str) -> pd.DataFrame:
        return self.pairs[self.pairs["split"] == split].reset_index(drop=True)

    def prepared(self, scan: str) -> str:
        """Path stem of a prepared scan."""
        return str(self.folder / "prepared" / part_of(self.scans, scan, SCANS_PER_PART) / scan)

    def field(self, name: str, pair: str) -> str:
        """Path of the field that a method (or ``TRUTH``) finds for a test pair."""
        part = part_of(list(self.pairs_of("test")["pair"]), pair, PAIRS_PER_PART)
        return str(self.folder / "fields" / name / part / f"{pair}.nii.gz")

    @property
    def ndim(self) -> int:
        return dimensions(self.settings, self.cohort)

    @property
    def knows_truth(self) -> bool:
        """Whether the cohort gives the maps from which every test pair's true field follows."""
        pairs, table = self.pairs_of("test"), self.cohort.table
        return bool((table.loc[pairs["fixed"], "to_template"] != "").all()) and bool(
            (table.loc[pairs["moving"], "from_template"] != "").all()
        )

    @property
    def label_table(self) -> str | None:
        """Path of the table that names the labels."""
        return str(self.folder / "cohort" / "labels.tsv") if self.embedded else self.settings.labels.table


def part_names(count: int, size: int) -> list[str]:
    """Names of the parts that ``count`` things fall into."""
    return [f"part-{number:02d}" for number in range(-(-count // size))]


def part_of(things: Sequence[str], thing: str, size: int) -> str:
    return f"part-{things.index(thing) // size:02d}"


def things_in(things: Sequence[str], part: str, size: int) -> list[str]:
    """The things that fall into a part."""
    number = int(part.removeprefix("part-"))
    return list(things[number * size : (number + 1) * size])


def plan_study(config: Mapping, results: str = "results", check: bool = True) -> Plan:
    """Check a study's configuration, cohort and pairs, and plan it.

    Parameters
    ----------
    config : mapping
        As read from YAML; or that of a plan, whose decision on what cannot run here then stands.
    check : bool
        Also check the settings of every method and the headers of every file, which takes seconds; a
        cluster's jobs, which plan the same study again, need not.

    Raises
    ------
    InputError
        Naming the key, row or file that is wrong, and the remedy.
    """
    decided = config.get(UNAVAILABLE)
    config = {key: value for key, value in config.items() if key != UNAVAILABLE}
    study = StudySettings.read(config, "configuration")
    folder = Path(results) / study.study
    cohort = _cohort(study.cohort, folder)
    check_methods(study, study.methods, cohort, settings=check)
    if check and not study.cohort.embedded:
        check_files(cohort)
    unavailable = _unavailable(study, cohort) if decided is None else decided
    methods = _available(study.methods, unavailable)
    if not methods:
        raise InputError("methods: none can run here:\n" + "\n".join(f"{n}: {why}" for n, why in unavailable.items()))
    test = make_pairs(cohort, "test", study.pairs, study.seed)
    experiments = planned_experiments(study.experiments.as_dict(), methods, cohort.table, test)
    entries = _entries(methods, experiments)
    if experiments:
        check_methods(study, entries, cohort, settings=check)
    training = _training_pairs(study, entries, cohort, check)
    validation = [make_pairs(cohort, "validation", study.pairs, study.seed)] if training else []
    scored = pd.concat([*validation, test], ignore_index=True)
    for scan in sorted(set(scored["fixed"]) | set(scored["moving"])):
        if cohort.file(scan, "labels") is None:
            raise InputError(
                f"{cohort.path}: scan '{scan}' has no labels; validation and test scans are scored by their labels"
            )
    imported = {
        name: _imported_fields(name, values, cohort, scored[scored["split"] == "test"])
        for name, values in methods.items()
        if entry(method_of(name, values)).imported
    }
    reference = _reference(study, cohort)
    plan = Plan(study, cohort, folder, training, scored, reference, experiments, imported, unavailable)
    for name in training:
        plan.validation_pairs(name)  # raises where there are none
    return plan


def _unavailable(study: StudySettings, cohort: Cohort) -> dict[str, str]:
    """The methods that need what is not there, or cannot register such images."""
    ndim, found = dimensions(study, cohort), {}
    for name, values in study.methods.items():
        method = entry(method_of(name, values))
        if ndim not in method.dimensions:
            found[name] = f"it registers {method.dimensions[0]}-D images alone, and these are {ndim}-D"
        elif missing := method.missing(values):
            found[name] = missing
    return found


def _available(methods: Mapping[str, dict], unavailable: Mapping[str, str]) -> dict[str, dict]:
    return {name: values for name, values in methods.items() if name not in unavailable}


def _imported_fields(name: str, values: Mapping, cohort: Cohort, pairs: pd.DataFrame) -> dict[str, str]:
    """Test pair → path of its field, of those that the list of an import names."""
    where, folder = f"methods.{name}", values.get("folder")
    if not folder or not Path(folder).is_dir():
        raise InputError(f"{where}.folder: {folder!r} is no folder; give the one with the fields")
    path = values.get("pairs") or str(Path(folder) / "pairs.tsv")
    listed = read_pairs(path, cohort, "field")
    files = {(row.fixed, row.moving): str(Path(folder) / row.field) for row in listed.itertuples() if row.field}
    found = {row.pair: files[row.fixed, row.moving] for row in pairs.itertuples() if (row.fixed, row.moving) in files}
    if not found:
        raise InputError(
            f"{path}: none of its pairs is a test pair of the study (the first: {pairs['fixed'].iloc[0]}, "
            f"{pairs['moving'].iloc[0]}); list the test pairs, or take over these with pairs: "
            "{kind: listed, table: …}"
        )
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


def _entries(methods: Mapping[str, dict], experiments: Mapping[str, Experiments]) -> dict[str, dict]:
    variants = {name: values for paper in experiments.values() for name, values in paper.variants.items()}
    for name in methods:
        if name in variants and variants[name] != methods[name]:
            raise InputError(
                f"methods.{name}: an experiment of the study has a network of this name; call the method something else"
            )
    return {**variants, **methods}


def _training_pairs(
    study: StudySettings, entries: Mapping[str, dict], cohort: Cohort, check: bool
) -> dict[str, EligiblePairs | PooledPairs]:
    """The pairs that each learned method draws from; ``check`` its batches, and that there are labels to look at."""
    found, drawn = {}, {}
    for name, values in entries.items():
        method, where = method_of(name, values), f"methods.{name}"
        if not entry(method).learned:
            continue
        count, contrasts = values.get("training_subjects"), values.get("training_contrasts")
        key = count, str(contrasts)
        if key not in drawn:
            check_contrasts(contrasts or [], cohort, f"{where}.training_contrasts")
            wanted = study.pairs.with_values({"contrasts": contrasts} if contrasts else {})
            drawn[key] = eligible_pairs(cohort, "train", wanted, count, study.seed, f"{where}.training_subjects")
        found[name] = drawn[key]
        if check:
            for tried in [values, *(ends(values) if is_tuned(values) else [])]:
                made = make_entry(name, tried)
                check_division(made.settings, where=where)
                if made.observed is not None:
                    check_training_labels(cohort, found[name], where)
    return found


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
