"""The plan of the study, and the functions that the rules ask for their inputs and parameters."""

import json
import math
import re
import sys
from pathlib import Path

from regcore import STAGE_VERSIONS
from regcore.settings.fingerprint import fingerprint
from regcore.errors import InputError
from regcore.process.files import atomic_write
from regcore.methods import entry, settings_of as settings_of_entry
from regcore.study.plan import (
    PAIRS_PER_PART,
    SCANS_PER_PART,
    UNAVAILABLE,
    part_names,
    plan_study,
    things_in,
)
from regcore.study.checks import TRUTH
from regcore.process.devices import gpu_count
from regcore.autoreg.search import FACTS, FOUND, TRACE, file_of


def make_plan():
    """Check the configuration and the cohort; a mistake ends here, before anything runs.

    What is installed is looked up once, by the process that was started: its jobs, perhaps on other machines and
    an hour later, read its decision and so plan the same study.
    """
    decision = Path(".snakemake", f"regcore-{config.get('study')}.json")
    decided = {}
    if not workflow.is_main_process and decision.is_file():
        decided = {UNAVAILABLE: json.loads(decision.read_text())}
    try:
        plan = plan_study({**config, **decided}, check=workflow.is_main_process)
    except InputError as error:
        sys.exit(f"The study cannot start:\n{error}")
    if workflow.is_main_process:
        with atomic_write(decision) as path:
            path.write_text(json.dumps(plan.unavailable))
    return plan


PLAN = make_plan()
config.clear()
config.update(PLAN.config)
METHOD_NAMES = "|".join(map(re.escape, PLAN.entries))
IMPORTED_NAMES = "|".join(map(re.escape, PLAN.imported)) or "none"
REGISTERED_NAMES = "|".join(re.escape(name) for name in PLAN.entries if name not in PLAN.imported) or "none"
TRAINED_NAMES = (
    "|".join(re.escape(name) for name in PLAN.entries if PLAN.learned(name) and name not in PLAN.searches) or "none"
)
SEARCHED_NAMES = "|".join(map(re.escape, PLAN.searches)) or "none"
CELL_SEARCHED_NAMES = "|".join(map(re.escape, PLAN.cell_searches)) or "none"
GPUS_PER_TRAINING = min(1, gpu_count())  # without a GPU trainings need not wait for each other
LARGE = PLAN.ndim == 3  # volumes need more of everything than slices

if workflow.is_main_process:
    for name, reason in PLAN.unavailable.items():
        print(f"Not run: {name}: {reason}", file=sys.stderr)


def scans_in(part):
    return things_in(PLAN.scans, part, SCANS_PER_PART)


def pairs_in(part):
    return things_in(list(PLAN.pairs_of("test")["pair"]), part, PAIRS_PER_PART)


def subjects_in(part):
    return things_in(PLAN.subjects, part, SCANS_PER_PART)


def files_of(scans):
    """What has to exist before scans can be read: parts of the embedded cohort, or the user's files."""
    if PLAN.embedded:
        return sorted({str(Path(PLAN.cohort.file(scan, "image")).parent) for scan in scans})
    return [path for scan in scans for path in PLAN.cohort.files(scan).values()]


def reference_files():
    """The files of the image that scans are aligned to."""
    return files_of([PLAN.reference]) if PLAN.reference in PLAN.cohort.table.index else [PLAN.reference]


def scan_files(wildcards):
    """The scans of a part and the reference, once the cohort has been read through."""
    return sorted({*files_of(scans_in(wildcards.part)), *reference_files()}) + checked_cohort()


def checked_cohort():
    """The proof that a user's cohort has been read through."""
    return [] if PLAN.embedded else [f"{PLAN.folder}/cohort_checked.txt"]


def label_table():
    return [PLAN.label_table] if PLAN.label_table else []


def prepared_parts(scans):
    """The folders in which prepared scans lie."""
    return sorted({str(Path(PLAN.prepared(scan)).parent) for scan in scans})


def scans_in_pairs(part):
    """The scans of a part's pairs."""
    pairs = PLAN.pairs_of("test").set_index("pair").loc[pairs_in(part)]
    return [*pairs["fixed"], *pairs["moving"]]


def prepared_of_pairs(wildcards):
    return prepared_parts(scans_in_pairs(wildcards.part))


def scans_of_pairs(wildcards):
    return files_of(sorted(set(scans_in_pairs(wildcards.part))))


def test_scans():
    pairs = PLAN.pairs_of("test")
    return sorted({*pairs["fixed"], *pairs["moving"]})


def imported_files(wildcards):
    """The files of a part's fields that were made elsewhere; one that is missing is a failed pair."""
    files = PLAN.imported[wildcards.method]
    return [files[pair] for pair in pairs_in(wildcards.part) if pair in files and Path(files[pair]).is_file()]


def model_of(wildcards):
    """The model that an entry registers with: its own, the one that is refined, one of another study, or none."""
    return PLAN.model_folder(wildcards.method) or []


def settings_of(wildcards):
    return settings_of_entry(PLAN.entries[wildcards.method])


def field_parts(name):
    """The folders in which the test pairs' fields of a method lie."""
    parts = part_names(len(PLAN.pairs_of("test")), PAIRS_PER_PART)
    return [f"{PLAN.folder}/fields/{name}/{part}" for part in parts]


def fields_of(wildcards):
    return field_parts(wildcards.method)


def true_fields_of(wildcards):
    return field_parts(TRUTH) if PLAN.knows_truth else []


def trials_of(wildcards):
    """What the trials of a search leave."""
    count = PLAN.searches[wildcards.method].trials
    return [f"{PLAN.search_folder(wildcards.method)}/trials/{slot:03d}.json" for slot in range(count)]


def trial_before(wildcards):
    """The trial that one waits for, so that no more run at once than the search wants."""
    before = int(wildcards.slot) - PLAN.searches[wildcards.method].workers
    return trials_of(wildcards)[before] if before >= 0 else []


def search_settings(wildcards):
    return PLAN.searches[wildcards.method].identity


def architecture_of(wildcards):
    """The file of an entry's architecture: what its search has found, or what the study names; a person may edit it."""
    if wildcards.method in PLAN.cell_searches:
        return [str(PLAN.architecture_folder(wildcards.method) / FOUND)]
    named = PLAN.entries[wildcards.method].get("architecture")
    return [named] if PLAN.method_of(wildcards.method) == "autoreg" and Path(str(named)).is_file() else []


def searches_before(wildcards):
    """What a search begins from, or takes as long as."""
    search = PLAN.cell_searches[wildcards.method]
    before = [str(PLAN.architecture_folder(other) / name) for other in search.others for name in (FOUND, FACTS)]
    start = search.settings.start
    return before if start is None or start in search.others else [*before, str(file_of(start))]


def cell_search_settings(wildcards):
    return PLAN.cell_searches[wildcards.method].settings.as_dict()


def learned_methods():
    return [name for name in PLAN.methods if PLAN.learned(name)]


def experiment_inputs(wildcards):
    """The scores, trained models and fields that an experiment shows."""
    paper = PLAN.experiments[wildcards.paper]
    scored = paper.scored.get(wildcards.experiment, [])
    trained = [*paper.trained.get(wildcards.experiment, []), *(name for name in scored if PLAN.learned(name))]
    swept = paper.swept.get(wildcards.experiment, [])
    drawn = paper.drawn.get(wildcards.experiment, [])
    return {
        "metrics": [f"{PLAN.folder}/metrics/{name}.parquet" for name in scored],
        "sweeps": [f"{PLAN.folder}/sweeps/{name}.{kind}" for name in swept for kind in ("parquet", "csv")],
        "models": [f"{PLAN.folder}/models/{name}" for name in dict.fromkeys(trained)],
        "features": [f"{PLAN.folder}/features/{name}.csv" for name in paper.features.get(wildcards.experiment, [])],
        "weights": [
            f"{PLAN.folder}/weights/{name}.{kind}"
            for name in paper.weighed.get(wildcards.experiment, [])
            for kind in ("csv", "safetensors")
        ],
        "architectures": [
            str(PLAN.architecture_folder(name) / TRACE) for name in paper.searched.get(wildcards.experiment, [])
        ],
        "fields": [part for name in drawn for part in field_parts(name)],
        "scans": files_of(test_scans()) if drawn else [],
    }


def voxelmorph_outputs(wildcards):
    return experiment_outputs("voxelmorph")


def hypermorph_outputs(wildcards):
    return experiment_outputs("hypermorph")


def autoreg_outputs(wildcards):
    return experiment_outputs("autoreg")


def spr_outputs(wildcards):
    return experiment_outputs("spr")


def synthmorph_outputs(wildcards):
    return experiment_outputs("synthmorph")


def models_of_sweep(wildcards):
    return [f"{PLAN.folder}/models/{name}" for name in PLAN.sweeps[wildcards.sweep]]


def groups_of_pairs():
    """What sets groups of pairs apart, as experiments show them."""
    return PLAN.pairs[["pair", "task", "dataset", "contrasts"]].to_dict("list")


def training_pairs_of(wildcards):
    """A fingerprint of the pairs that a training draws from."""
    return fingerprint(PLAN.training_pairs[wildcards.method].identity)


def scans_of_sweeps():
    """The scans of the validation and test pairs."""
    return sorted({*PLAN.pairs["fixed"], *PLAN.pairs["moving"]})


def experiment_outputs(paper):
    """The tables and figures of a paper's experiments."""
    if paper not in PLAN.experiments:
        sys.exit(f"The study plans no experiments of {paper}: add 'experiments: {{{paper}: {{}}}}' to its file")
    planned = PLAN.experiments[paper]
    return [
        f"{PLAN.folder}/experiments/{paper}/{experiment}{'.html' if experiment.startswith('table') else '.png'}"
        for experiment in planned.names
    ]


def table_entries():
    """The rows of the tables, in their order."""
    return [*PLAN.methods, *([TRUTH] if PLAN.knows_truth else [])]


def registration_minutes(wildcards):
    """How long a job may take: where a tool hangs on every pair it is stopped, and the job still ends by itself."""
    usual = 1440 if LARGE else 60
    if not entry(PLAN.method_of(wildcards.method)).external:
        return usual
    limit = len(pairs_in(wildcards.part)) * config["registration"]["time_limit"] / 60
    return max(usual, math.ceil(limit) + 30)
