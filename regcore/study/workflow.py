"""What the workflow's rules ask: inputs, parameters and resources of their jobs, by names of entries and parts.

Without torch, and without Snakemake but for the object that :func:`limit_gpus` is given.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regcore.autoreg.search import TRACE
from regcore.errors import InputError
from regcore.experiments.planned import PAPERS
from regcore.process.devices import gpu_count
from regcore.process.files import atomic_write
from regcore.settings.fingerprint import fingerprint
from regcore.study.checks import TRUTH
from regcore.study.entry import Entry
from regcore.study.plan import (
    PAIRS_PER_PART,
    SCANS_PER_PART,
    UNAVAILABLE,
    Plan,
    part_names,
    plan_study,
    read_study,
    things_in,
)
from regcore.study.versions import Versions

#: Where what the first process found out is kept for the others.
DECISIONS = Path(".snakemake")

#: Rules whose every job runs a network on a GPU where there is one; ``register`` does for some methods.
ON_GPU = ("train", "trial", "architecture", "sweep", "features", "weights")


def decided_plan(config: Mapping, first: bool) -> Plan:
    """The plan of the study, checked by the process that was started.

    What is installed is looked up once, by that process: its jobs, perhaps on other machines and an hour later, read
    its decision from ``.snakemake`` and so plan the same study.

    Parameters
    ----------
    first : bool
        Whether this is the process that was started.

    Raises
    ------
    InputError
        As for :func:`regcore.study.plan.plan_study`.
    """
    decision = DECISIONS / f"regcore-{read_study(config).study}.json"
    if not first and decision.is_file():
        config = {**config, UNAVAILABLE: json.loads(decision.read_text())}
    plan = plan_study(config, check=first)
    if first:
        with atomic_write(decision) as path:
            path.write_text(json.dumps(plan.unavailable))
    return plan


def limit_gpus(workflow: Any) -> None:
    """Say how many GPUs the jobs that run at the same time may hold, where nobody else has.

    A profile, or ``--resources gpu=<number>``, says it of a cluster, whose head need not have a GPU, or of a machine
    with several.  Else it is one where this machine has any, for a training takes all that it sees.  Snakemake lowers
    what jobs ask for to this limit: with 0 none asks for a GPU, nor waits for one.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    """
    if "gpu" not in workflow.resource_settings.resources:
        workflow.register_resource("gpu", min(1, gpu_count()))


def one_of(names: Iterable[str]) -> str:
    """A regular expression for names; one that matches nothing that is made, where there are none."""
    return "|".join(map(re.escape, names)) or "none"


class Workflow:
    """The answers to the rules' questions about a study.

    Parameters
    ----------
    plan : Plan
    scripts : Path, optional
        Folder of the workflow's scripts, whose code counts in the versions of stages.
    """

    def __init__(self, plan: Plan, scripts: Path | None = None):
        self.plan, self.files = plan, plan.files
        self.versions = Versions(scripts, cache=DECISIONS / "regcore-sources.json")
        self._volumes = plan.ndim == 3  # read once: it may stand in a file

    # ---- names that rules are for

    @property
    def methods(self) -> list[str]:
        """All entries, and the truth."""
        return [*self.plan.entries, TRUTH]

    @property
    def imported(self) -> list[str]:
        """Entries whose fields were made elsewhere."""
        return [entry.name for entry in self._entries() if entry.info.imported]

    @property
    def registered(self) -> list[str]:
        """Entries that find fields themselves."""
        return [entry.name for entry in self._entries() if not entry.info.imported]

    @property
    def trained(self) -> list[str]:
        """Entries that are trained once, with hyperparameters that are set."""
        return [entry.name for entry in self._entries() if entry.learned and entry.search is None]

    @property
    def searched(self) -> list[str]:
        """Entries whose hyperparameters are searched."""
        return [entry.name for entry in self._entries() if entry.search is not None]

    @property
    def cell_searched(self) -> list[str]:
        """Entries whose cells or objective are searched."""
        return [entry.name for entry in self._entries() if entry.cell_search is not None]

    @property
    def learned_methods(self) -> list[str]:
        """The methods of the report that are trained."""
        return [name for name in self.plan.methods if self.entry(name).learned]

    @property
    def table_entries(self) -> list[str]:
        """The rows of the report's tables, in their order."""
        return [*self.plan.methods, *([TRUTH] if self.plan.knows_truth else [])]

    @property
    def papers(self) -> list[str]:
        """All papers that have experiments, whether the study plans them or not."""
        return list(PAPERS)

    def _entries(self) -> Iterable[Entry]:
        return self.plan.entries.values()

    def entry(self, name: str) -> Entry:
        """One entry."""
        return self.plan.entries[name]

    # ---- parts

    def scans_in(self, part: str) -> list[str]:
        """The scans that are prepared together."""
        return things_in(self.plan.scans, part, SCANS_PER_PART)

    def pairs_in(self, part: str) -> list[str]:
        """The test pairs that are registered together."""
        return things_in(list(self.plan.pairs_of("test")["pair"]), part, PAIRS_PER_PART)

    def subjects_in(self, part: str) -> list[str]:
        """The subjects of the embedded cohort that are made together."""
        return things_in(self.plan.subjects, part, SCANS_PER_PART)

    # ---- inputs: scans

    @property
    def cohort_table(self) -> list[str]:
        """A user's cohort table."""
        table = self.plan.settings.cohort.table
        return [table] if table else []

    @property
    def cohort_scans(self) -> list[str]:
        """The files of a user's scans."""
        return [] if self.plan.embedded else self._files_of(self.plan.scans)

    @property
    def checked_cohort(self) -> list[str]:
        """The proof that a user's cohort has been read through."""
        return [] if self.plan.embedded else [f"{self.plan.folder}/cohort_checked.txt"]

    @property
    def label_table(self) -> list[str]:
        """The table that names the labels."""
        return [self.plan.label_table] if self.plan.label_table else []

    @property
    def test_scans(self) -> list[str]:
        """The files of the scans of test pairs."""
        return self._files_of(_scans(self.plan.pairs_of("test")))

    def scans_to_prepare(self, part: str) -> list[str]:
        """The files of a part's scans and of the reference, once the cohort has been read through."""
        reference = self.plan.reference
        known = reference in self.plan.cohort.table.index
        files = {*self._files_of(self.scans_in(part)), *(self._files_of([reference]) if known else [reference])}
        return sorted(files) + self.checked_cohort

    def scans_of_pairs(self, part: str) -> list[str]:
        """The files of the scans of a part's pairs."""
        return self._files_of(_scans(self._pairs(part)))

    def _files_of(self, scans: Iterable[str]) -> list[str]:
        """What has to exist before scans can be read: parts of the embedded cohort, or the user's files."""
        if self.plan.embedded:
            return sorted({str(Path(self.plan.cohort.file(scan, "image")).parent) for scan in scans})
        return [path for scan in scans for path in self.plan.cohort.files(scan).values()]

    @property
    def prepared(self) -> list[str]:
        """The folders with all scans on the common grid."""
        return self._prepared(self.plan.scans)

    @property
    def prepared_to_score(self) -> list[str]:
        """Those of them with the scans of validation and test pairs."""
        return self._prepared(_scans(self.plan.pairs))

    @property
    def prepared_to_test(self) -> list[str]:
        """Those of them with the scans of test pairs."""
        return self._prepared(_scans(self.plan.pairs_of("test")))

    def prepared_of_pairs(self, part: str) -> list[str]:
        """Those of them with the scans of a part's pairs."""
        return self._prepared(_scans(self._pairs(part)))

    def _prepared(self, scans: Iterable[str]) -> list[str]:
        return sorted({str(Path(self.plan.prepared(scan)).parent) for scan in scans})

    def _pairs(self, part: str) -> Any:
        return self.plan.pairs_of("test").set_index("pair").loc[self.pairs_in(part)]

    # ---- inputs: fields

    def imported_fields(self, name: str, part: str) -> list[str | None]:
        """For each pair of a part, the file of its field that was made elsewhere, where there is one."""
        return [self.entry(name).fields.get(pair) for pair in self.pairs_in(part)]

    def imported_files(self, name: str, part: str) -> list[str]:
        """Those of them that exist; one that is missing is a failed pair."""
        return [file for file in self.imported_fields(name, part) if file is not None and Path(file).is_file()]

    def fields(self, name: str) -> list[str]:
        """The folders with the test pairs' fields of a method, or the truth."""
        parts = part_names(len(self.plan.pairs_of("test")), PAIRS_PER_PART)
        return [str(self.files.fields(name, part)) for part in parts]

    @property
    def true_fields(self) -> list[str]:
        """The folders with the true fields, where these are known."""
        return self.fields(TRUTH) if self.plan.knows_truth else []

    # ---- inputs: models and searches

    def model(self, name: str) -> list[str]:
        """The model that an entry registers with: its own, the one that it refines, one of another study, or none."""
        folder = self.entry(name).model_folder
        return [] if folder is None else [str(folder)]

    def architecture(self, name: str) -> list[str]:
        """The file of an entry's architecture, where it has one."""
        file = self.entry(name).architecture
        return [] if file is None else [str(file)]

    def searches_before(self, name: str) -> list[str]:
        """What an entry's search for cells begins from, or takes as long as."""
        return [str(file) for file in self.entry(name).searches_before]

    def trials(self, name: str) -> list[str]:
        """What the trials of an entry's search leave."""
        return [str(self.files.trial(name, slot)) for slot in range(self.entry(name).search.trials)]

    def trial_before(self, name: str, slot: str) -> list[str]:
        """The trial that one waits for, so that no more run at once than the search wants."""
        before = int(slot) - self.entry(name).search.workers
        return self.trials(name)[before : before + 1] if before >= 0 else []

    def models_of_sweep(self, name: str) -> list[str]:
        """The models that a sweep scores."""
        return [str(self.files.model(entry)) for entry in self.entries_of_sweep(name)]

    def entries_of_sweep(self, name: str) -> list[str]:
        """The entries whose networks a sweep scores."""
        return list(self.plan.sweeps[name].entries)

    # ---- inputs: experiments

    def experiment(self, paper: str, name: str) -> dict[str, list[str]]:
        """All that one table or figure of a paper is made of."""
        needs, files = self.plan.papers[paper][name].needs, self.files
        models = [*needs.models, *(entry for entry in needs.scores if self.entry(entry).learned)]
        found = {
            "metrics": map(files.metrics, needs.scores),
            "sweeps": (path(sweep) for sweep in needs.sweeps for path in (files.sweep, files.optima)),
            "models": map(files.model, dict.fromkeys(models)),
            "features": map(files.features, needs.features),
            "weights": (path(entry) for entry in needs.weights for path in (files.weights, files.weight_volumes)),
            "architectures": (files.architecture(entry) / TRACE for entry in needs.architectures),
            "fields": (part for entry in needs.fields for part in self.fields(entry)),
            "scans": self.test_scans if needs.fields else [],
        }
        return {kind: list(map(str, paths)) for kind, paths in found.items()}

    def experiments(self, paper: str) -> list[str]:
        """The tables and figures of a paper.

        Raises
        ------
        InputError
            The study plans no experiments of it.
        """
        if paper not in self.plan.papers:
            raise InputError(f"it plans no experiments of {paper}: add 'experiments: {{{paper}: {{}}}}' to its file")
        planned = self.plan.papers[paper]
        return [str(self.files.experiment(paper, planned[name].file)) for name in planned.names]

    # ---- parameters

    def version(self, stage: str, *names: str) -> int | str:
        """The version of a stage's code, with that of the methods behind entries: Snakemake does not see modules."""
        return self.versions.of(stage, *(method for name in names for method in self.entry(name).methods_run))

    def training_pairs(self, name: str) -> str:
        """A fingerprint of the pairs that a training draws from."""
        return fingerprint(self.entry(name).training_pairs.identity)

    @property
    def pairs_of_training(self) -> dict[str, Any]:
        """The settings of pairs that trainings depend on."""
        pairs = self.plan.settings.pairs
        return {
            "kind": pairs.kind,
            "atlas": pairs.atlas,
            "contrasts": pairs.contrasts,
            "validation": pairs.validation,
        }

    @property
    def groups_of_pairs(self) -> dict[str, list[str]]:
        """What sets groups of pairs apart, as experiments show them."""
        return self.plan.pairs[["pair", "task", "dataset", "contrasts"]].to_dict("list")

    # ---- resources

    def sized(self, slices: int, volumes: int) -> int:
        """A resource by the size of the study's images: volumes need more of everything than slices."""
        return volumes if self._volumes else slices

    def gpus(self, rule: str, name: str | None = None) -> int:
        """GPUs that a job asks for, where there are any; see :func:`limit_gpus`.

        Parameters
        ----------
        name : str, optional
            The job's entry.
        """
        if rule == "register":
            return int(self.entry(name).info.wants_gpu)
        return int(rule in ON_GPU)

    def registration_minutes(self, name: str, part: str) -> int:
        """How long registering a part may take; where a tool hangs on every pair it is stopped, and the job ends."""
        usual = self.sized(60, 1440)
        if not self.entry(name).info.external:
            return usual
        limit = len(self.pairs_in(part)) * self.plan.settings.registration.time_limit / 60
        return max(usual, math.ceil(limit) + 30)


def _scans(pairs: Any) -> list[str]:
    return sorted({*pairs["fixed"], *pairs["moving"]})
