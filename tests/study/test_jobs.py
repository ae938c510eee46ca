"""What the workflow's rules are told of a study's jobs: inputs, names, resources, and which of them want a GPU."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from support.paths import ROOT

from regcore.errors import InputError
from regcore.experiments.planned import PAPERS
from regcore.methods import METHODS
from regcore.study import workflow
from regcore.study.decision import decided_plan
from regcore.study.entry import Entry
from regcore.study.plan import plan_study
from regcore.study.workflow import ON_GPU, Workflow, limit_gpus, one_of

RULES = ROOT / "workflow" / "rules"
METHODS_OF_STUDY = {
    "affine": None,
    "syn": None,
    "instance": None,
    "mine": {"method": "voxelmorph", "lambda": 0.1},
    "tuned": {"method": "voxelmorph", "tune": {"ranges": {"lambda": [0.1, 1]}, "trials": 3, "workers": 2}},
    "better": {"method": "refine", "start": "mine"},
    "taken": {"method": "pretrained", "model": "synthmorph-2d"},
    "further": {"method": "refine", "start": "synthmorph-2d"},
    "ar": {"method": "autoreg", "autosearch": {"what": ["objective"]}},
    "moved": {"method": "autoreg", "autosearch": {"start": "ar", "what": []}},
}
CONFIG = {
    "study": "x",
    "cohort": {"embedded": {"ndim": 2, "train": 3, "validation": 2, "test": 5}},
    "pairs": {"test": 20},
    "methods": METHODS_OF_STUDY,
    "experiments": {"hypermorph": {"lambda": {"mse": [0.3, 0.5]}}},
}

NETWORKS = ["hyper-mse", "grid-mse-lam~0.3", "grid-mse-lam~0.5"]


@pytest.fixture(scope="module")
def jobs():
    return Workflow(plan_study(CONFIG, check=False))


# ---- names and inputs


def test_every_entry_is_trained_searched_or_neither(jobs):
    assert jobs.searched == ["tuned"] and jobs.cell_searched == ["ar", "moved"]
    assert set(jobs.trained) == {"mine", "ar", "moved", *NETWORKS}
    assert jobs.learned_methods == ["mine", "tuned", "ar", "moved"]
    assert jobs.registered == list(jobs.plan.entries) and jobs.imported == []
    assert one_of(["a.b", "c"]) == r"a\.b|c" and one_of([]) == "none"


def test_an_entry_registers_with_its_model_or_that_of_another(jobs):
    models = {name: jobs.model(name) for name in ("affine", "mine", "better")}
    assert models == {"affine": [], "mine": ["results/x/models/mine"], "better": ["results/x/models/mine"]}
    assert jobs.model("taken")[0].endswith("synthmorph-2d")
    assert jobs.model("further") == jobs.model("taken")


def test_the_pairs_of_a_part_need_their_scans_alone(jobs):
    assert [len(jobs.pairs_in(part)) for part in ("part-00", "part-01")] == [16, 4]
    assert jobs.fields("mine") == ["results/x/fields/mine/part-00", "results/x/fields/mine/part-01"]
    assert set(jobs.prepared_of_pairs("part-01")) <= set(jobs.prepared_to_test) <= set(jobs.prepared)


def test_no_more_trials_run_at_once_than_a_search_has_workers(jobs):
    first, second, third = jobs.trials("tuned")
    assert first == "results/x/tuning/tuned/trials/000.json"
    assert [jobs.trial_before("tuned", slot) for slot in ("000", "001", "002")] == [[], [], [first]]
    assert {second, third}.isdisjoint([first])


def test_a_search_waits_for_what_it_begins_from(jobs):
    assert jobs.searches_before("ar") == []
    assert jobs.searches_before("moved") == [
        f"results/x/architectures/ar/{file}" for file in ("architecture.json", "search.json")
    ]
    assert jobs.architecture("moved") == ["results/x/architectures/moved/architecture.json"]
    assert jobs.architecture("mine") == []


def test_an_experiment_needs_what_it_declares(jobs):
    found = jobs.experiment("hypermorph", "table1")
    assert found["models"] == [f"results/x/models/{name}" for name in NETWORKS]
    assert found["sweeps"] == [
        f"results/x/sweeps/{name}.{kind}" for name in ("mse-hyper", "mse-grid") for kind in ("parquet", "csv")
    ]
    assert jobs.experiments("hypermorph")[-1] == "results/x/experiments/hypermorph/table1.html"
    with pytest.raises(InputError, match=r"no experiments of spr are planned: add 'experiments: {spr: {}}'"):
        jobs.experiments("spr")


def test_a_tool_has_the_time_to_hang_on_every_pair(jobs):
    limit = jobs.plan.settings.registration.time_limit
    assert jobs.registration_minutes("affine", "part-00") == 60
    assert jobs.registration_minutes("syn", "part-00") == max(60, 16 * limit // 60 + 30)


# ---- plans


@pytest.mark.slow
def test_a_method_is_loaded_once_for_each_plan(monkeypatch):
    made, stored = [], Entry.make

    def counted(entry, values=None):
        if values is None:
            made.append(entry.name)
        return stored(entry, values)

    monkeypatch.setattr(Entry, "make", counted)
    plan = plan_study(CONFIG)
    assert sorted(made) == sorted(plan.entries)


@pytest.mark.slow
def test_a_study_is_planned_and_listed_without_torch():
    code = (
        "import sys, json\n"
        "import regcore.study.job, regcore.study.stages.listing\n"
        "from regcore.study.workflow import Workflow\n"
        "from regcore.study.plan import plan_study\n"
        "jobs = Workflow(plan_study(json.loads(sys.argv[1]), check=False))\n"
        "[jobs.experiments(paper) for paper in jobs.papers]\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    methods = {name: values for name, values in METHODS_OF_STUDY.items() if name != "taken"}
    config = {**CONFIG, "methods": methods, "experiments": {paper: {} for paper in PAPERS} | CONFIG["experiments"]}
    done = subprocess.run([sys.executable, "-c", code, json.dumps(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_jobs_take_over_what_the_first_process_decided(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {**CONFIG, "methods": {"affine": None, "deeds": None}, "experiments": {}}
    assert list(decided_plan(config, first=True).entries) == ["affine"]
    decision = tmp_path / ".snakemake" / "regcore-x.json"
    decision.write_text('{"affine": "gone"}')
    assert list(decided_plan(config, first=False).entries) == ["deeds"]


# ---- GPUs


def gpus_of_rules():
    """Rule → what its resource ``gpu`` says, of all rules that have one."""
    text = "\n".join(path.read_text() for path in sorted(RULES.glob("*.smk")))
    rules = re.split(r"^rule (\w+):$", text, flags=re.MULTILINE)[1:]
    found = {
        name: re.search(r"^ +gpu=(.*),$", body, re.MULTILINE) for name, body in zip(*[iter(rules)] * 2, strict=True)
    }
    return {name: match[1] for name, match in found.items() if match}


def test_rules_that_run_a_network_ask_for_a_gpu():
    of_method = 'lambda wildcards: WORKFLOW.gpus("register", wildcards.method)'
    assert gpus_of_rules() == {name: f'WORKFLOW.gpus("{name}")' for name in ON_GPU} | {"register": of_method}


def test_registering_asks_for_a_gpu_where_the_method_runs_on_one(jobs):
    asked = {name: jobs.gpus("register", name) for name in METHODS_OF_STUDY}
    assert asked == {name: int(name not in ("affine", "syn")) for name in METHODS_OF_STUDY}
    assert [jobs.gpus(rule) for rule in ("train", "trial", "features", "prepare", "evaluate")] == [1, 1, 1, 0, 0]
    tools = {name for name, info in METHODS.items() if info.wants_gpu and not info.learned}
    assert tools == {"auto", "instance", "refine", "pretrained", "convexadam", "fireants"}


@pytest.mark.parametrize(
    ("said", "here", "expected"), [({}, 0, 0), ({}, 4, 1), ({"gpu": 32}, 0, 32), ({"gpu": 0}, 4, 0)]
)
def test_a_profile_says_how_many_gpus_there_are_or_this_machine(monkeypatch, said, here, expected):
    monkeypatch.setattr(workflow, "gpu_count", lambda: here)
    limits = dict(said)
    limit_gpus(
        SimpleNamespace(
            resource_settings=SimpleNamespace(resources=said), register_resource=lambda *limit: limits.update([limit])
        )
    )
    assert limits == {"gpu": expected}


def test_the_slurm_profile_says_it_in_one_place():
    profile = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "profile.v9+.yaml").read_text())
    assert profile["resources"] == ["gpu=32"] and "set-resources" not in profile
    assert "gpu" not in profile["default-resources"]
    default = yaml.safe_load((ROOT / "workflow" / "profiles" / "default" / "profile.v9+.yaml").read_text())
    assert "resources" not in default, "the GPUs of a workstation are counted"
