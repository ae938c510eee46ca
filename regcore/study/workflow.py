"""Inputs, parameters and resources for the workflow's rules, by names of entries and parts.

Needs neither torch nor Snakemake, except for the object passed to :func:`limit_gpus`.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from regcore.autoreg.search import TRACE
from regcore.errors import InputError
from regcore.experiments.planned import PAPERS
from regcore.process.devices import gpu_count
from regcore.settings.fingerprint import fingerprint
from regcore.study.checks import TRUTH
from regcore.study.decision import DECISIONS
from regcore.study.entry import Entry
from regcore.study.parts import PAIRS_PER_PART, SCANS_PER_PART, part_names, things_in
from regcore.study.plan import Plan
from regcore.study.versions import Versions

#: Rules whose jobs all run a network on a GPU if there is one; ``register`` does so for some methods.
ON_GPU = ("train", "trial", "architecture", "sweep", "features", "weights")


def limit_gpus(workflow: Any) -> None:
    """Set how many GPUs jobs may use at the same time, unless the user has set it.

    A profile or ``--resources gpu=<number>`` sets it for a cluster, whose head node may have no GPU, or for a machine
    with several.  Otherwise it is 1 if this machine has any, because a training uses all GPUs it sees.  Snakemake
    lowers the requests of jobs to this limit: with 0, no job asks or waits for a GPU.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        The workflow, whose resources are changed.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.study.workflow import limit_gpus
    >>> resources = {"gpu": 4}  # as with --resources gpu=4
    >>> limit_gpus(SimpleNamespace(resource_settings=SimpleNamespace(resources=resources)))
    >>> resources
    {'gpu': 4}
    """
    if "gpu" not in workflow.resource_settings.resources:
        workflow.register_resource("gpu", min(1, gpu_count()))


def one_of(names: Iterable[str]) -> str:
    """A regular expression that matches one of the names; without names it matches nothing.

    Parameters
    ----------
    names : iterable of str
        Matched as they are.

    Returns
    -------
    str
        For the wildcard constraints of rules.

    Examples
    --------
    >>> import re
    >>> from regcore.study.workflow import one_of
    >>> bool(re.fullmatch(one_of(["syn", "spr"]), "spr")), bool(re.fullmatch(one_of(["a.b"]), "a-b"))
    (True, False)
    """
    return "|".join(map(re.escape, names)) or "none"


class Workflow:
    """What the rules need to know about a study.

    Parameters
    ----------
    plan : Plan
        The study.
    scripts : Path, optional
        Folder of the workflow's scripts; their code counts in the versions of stages.

    Examples
    --------
    >>> from regcore.study.plan import plan_study
    >>> from regcore.study.workflow import Workflow
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> config = {"study": "small", "cohort": cohort, "methods": {"affine": {}, "voxelmorph": {}}}
    >>> workflow = Workflow(plan_study(config, check=False))
    >>> workflow.trained, workflow.model("voxelmorph"), workflow.fields("affine")
    (['voxelmorph'], ['results/small/models/voxelmorph'], ['results/small/fields/affine/part-00'])
    >>> workflow.gpus("train"), workflow.gpus("register", "affine")
    (1, 0)
    """

    def __init__(self, plan: Plan, scripts: Path | None = None):
        self.plan, self.files = plan, plan.files
        self.versions = Versions(scripts, cache=DECISIONS / "regcore-sources.json")
        self._volumes = plan.ndim == 3  # read once: it may require reading a file

    # ---- names of entries

    @property
    def methods(self) -> list[str]:
        """All entries, and the truth."""
        return [*self.plan.entries, TRUTH]

    @property
    def imported(self) -> list[str]:
        """Entries with imported fields."""
        return [entry.name for entry in self._entries() if entry.info.imported]

    @property
    def registered(self) -> list[str]:
        """Entries that compute their fields."""
        return [entry.name for entry in self._entries() if not entry.info.imported]

    @property
    def trained(self) -> list[str]:
        """Entries that are trained once, with given hyperparameters."""
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
        """The rows of the report's tables, in order."""
        return [*self.plan.methods, *([TRUTH] if self.plan.knows_truth else [])]

    @property
    def papers(self) -> list[str]:
        """All papers with experiments, whether or not the study plans them."""
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
        """The file that shows that a user's cohort was read completely."""
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
        """The files of a part's scans and of the reference, once the cohort was read completely."""
        reference = self.plan.reference
        known = reference in self.plan.cohort.table.index
        files = {*self._files_of(self.scans_in(part)), *(self._files_of([reference]) if known else [reference])}
        return sorted(files) + self.checked_cohort

    def scans_of_pairs(self, part: str) -> list[str]:
        """The files of the scans of a part's pairs."""
        return self._files_of(_scans(self._pairs(part)))

    def _files_of(self, scans: Iterable[str]) -> list[str]:
        """What must exist before scans can be read: parts of the embedded cohort, or the user's files."""
        if self.plan.embedded:
            return sorted({str(self.plan.cohort.existing(scan, "image").parent) for scan in scans})
        return [path for scan in scans for path in self.plan.cohort.files(scan).values()]

    @property
    def prepared(self) -> list[str]:
        """The folders with all scans on the common grid."""
        return self._prepared(self.plan.scans)

    @property
    def prepared_to_score(self) -> list[str]:
        """The folders with prepared scans of validation and test pairs."""
        return self._prepared(_scans(self.plan.pairs))

    @property
    def prepared_to_test(self) -> list[str]:
        """The folders with prepared scans of test pairs."""
        return self._prepared(_scans(self.plan.pairs_of("test")))

    def prepared_of_pairs(self, part: str) -> list[str]:
        """The folders with prepared scans of a part's pairs."""
        return self._prepared(_scans(self._pairs(part)))

    def _prepared(self, scans: Iterable[str]) -> list[str]:
        return sorted({str(Path(self.plan.prepared(scan)).parent) for scan in scans})

    def _pairs(self, part: str) -> Any:
        return self.plan.pairs_of("test").set_index("pair").loc[self.pairs_in(part)]

    # ---- inputs: fields

    def imported_fields(self, name: str, part: str) -> list[str | None]:
        """For each pair of a part, the file of its imported field, if there is one."""
        return [self.entry(name).fields.get(pair) for pair in self.pairs_in(part)]

    def imported_files(self, name: str, part: str) -> list[str]:
        """The imported fields that exist; a missing one is a failed pair."""
        return [file for file in self.imported_fields(name, part) if file is not None and Path(file).is_file()]

    def fields(self, name: str) -> list[str]:
        """The folders with the test pairs' fields of a method, or the true fields."""
        parts = part_names(len(self.plan.pairs_of("test")), PAIRS_PER_PART)
        return [str(self.files.fields(name, part)) for part in parts]

    @property
    def true_fields(self) -> list[str]:
        """The folders with the true fields, if these are known."""
        return self.fields(TRUTH) if self.plan.knows_truth else []

    # ---- inputs: models and searches

    def model(self, name: str) -> list[str]:
        """The model that an entry registers with: its own, the one it refines, one of another study, or none."""
        folder = self.entry(name).model_folder
        return [] if folder is None else [str(folder)]

    def architecture(self, name: str) -> list[str]:
        """The file of an entry's architecture, if it has one."""
        file = self.entry(name).architecture
        return [] if file is None else [str(file)]

    def searches_before(self, name: str) -> list[str]:
        """What an entry's search for cells starts from or takes its time limit from."""
        return [str(file) for file in self.entry(name).searches_before]

    def trials(self, name: str) -> list[str]:
        """The results of the trials of an entry's search."""
        return [str(self.files.trial(name, slot)) for slot in range(self.entry(name).existing_search.trials)]

    def trial_before(self, name: str, slot: str) -> list[str]:
        """The trial that this one waits for, so that only as many run at once as the search allows."""
        before = int(slot) - self.entry(name).existing_search.workers
        return self.trials(name)[before : before + 1] if before >= 0 else []

    def models_of_sweep(self, name: str) -> list[str]:
        """The models scored by a sweep."""
        return [str(self.files.model(entry)) for entry in self.entries_of_sweep(name)]

    def entries_of_sweep(self, name: str) -> list[str]:
        """The entries whose networks are scored by a sweep."""
        return list(self.plan.sweeps[name].entries)

    # ---- inputs: experiments

    def experiment(self, paper: str, name: str) -> dict[str, list[str]]:
        """All inputs of one table or figure of a paper."""
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
            raise InputError(f"no experiments of {paper} are planned: add 'experiments: {{{paper}: {{}}}}' to its file")
        planned = self.plan.papers[paper]
        return [str(self.files.experiment(paper, planned[name].file)) for name in planned.names]

    # ---- parameters

    def version(self, stage: str, *names: str) -> int | str:
        """The version of a stage's code, with that of its entries' methods, as Snakemake does not see modules."""
        return self.versions.of(stage, *(method for name in names for method in self.entry(name).methods_run))

    def training_pairs(self, name: str) -> str:
        """Fingerprint of the pairs that a training draws from."""
        return fingerprint(self.entry(name).existing_training_pairs.identity)

    @property
    def pairs_of_training(self) -> dict[str, Any]:
        """The pair settings that trainings depend on."""
        pairs = self.plan.settings.pairs
        return {
            "kind": pairs.kind,
            "atlas": pairs.atlas,
            "contrasts": pairs.contrasts,
            "validation": pairs.validation,
        }

    @property
    def groups_of_pairs(self) -> dict[str, list[str]]:
        """What defines the groups of pairs in the experiments."""
        return {name: self.plan.pairs[name].tolist() for name in ("pair", "task", "dataset", "contrasts")}

    # ---- resources

    def sized(self, slices: int, volumes: int) -> int:
        """A resource by the size of the study's images: volumes need more than slices."""
        return volumes if self._volumes else slices

    def gpus(self, rule: str, name: str | None = None) -> int:
        """GPUs that a job asks for; see :func:`limit_gpus`.

        Parameters
        ----------
        name : str, optional
            Entry of the job.
        """
        if rule == "register":
            assert name is not None  # every job of this rule has an entry
            return int(self.entry(name).info.wants_gpu)
        return int(rule in ON_GPU)

    def registration_minutes(self, name: str, part: str) -> int:
        """Time limit for registering a part; enough even if a tool is stopped at its timeout on every pair."""
        usual = self.sized(60, 1440)
        if not self.entry(name).info.external:
            return usual
        limit = len(self.pairs_in(part)) * self.plan.settings.registration.time_limit / 60
        return max(usual, math.ceil(limit) + 30)


def _scans(pairs: Any) -> list[str]:
    return sorted({*pairs["fixed"], *pairs["moving"]})
