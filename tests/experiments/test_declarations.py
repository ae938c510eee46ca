"""What every declaration of an experiment promises: its names are there, its function draws it, nothing is in vain."""

import inspect

import pytest

from regcore.experiments.planned import PAPERS
from regcore.papers.write import drawn_by
from regcore.study.plan import plan_study

EXPERIMENTS = {
    "voxelmorph": {"training_subjects": [2], "gamma": [0.1]},
    "hypermorph": {
        "lambda": {"mse": [0.3, 0.9]},
        "replicates": {"count": 2, "lambda": {"mse": [0.5]}},
        "landscapes": {"gamma": {"lambda": [0.2, 0.8], "gamma": [0, 1], "observed": "all"}},
    },
    "autoreg": {"starts": 2, "controls": ["random"]},
    "spr": {"grid": {"lambda_max": [1, 2], "alpha": [0, 0.1]}, "alphas": [0.1], "labels": True, "all_weights": {}},
    "synthmorph": {"sweeps": {"b_v": [0.5, 1]}, "lambda": [0, 1]},
}
CONTRASTS = ["T1w", "FLASH-20", "FLASH-40"]
CONFIG = {
    "study": "x",
    "cohort": {"embedded": {"ndim": 2, "train": 3, "validation": 2, "test": 3, "contrasts": CONTRASTS}},
    "pairs": {"contrasts": [["T1w", contrast] for contrast in CONTRASTS]},
    "methods": {"affine": None, "syn": None, "voxelmorph": {"lambda": 0.1}},
    "experiments": EXPERIMENTS,
}


@pytest.fixture(scope="module")
def plan():
    return plan_study(CONFIG, check=False)


def test_the_study_of_these_tests_plans_every_paper(plan):
    assert list(plan.papers) == list(PAPERS)
    counts = {name: len(paper.experiments) for name, paper in plan.papers.items()}
    expected = {"voxelmorph": 8, "hypermorph": 6, "autoreg": 11, "spr": 13, "synthmorph": 7}
    assert counts == expected, "all but Table II of AutoReg, for which another study is needed"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_experiment_has_a_function_that_takes_its_options(plan, paper):
    for experiment in plan.papers[paper].experiments:
        draw = drawn_by(experiment.show)
        inspect.signature(draw).bind("results", experiment.needs, **experiment.options)
        assert draw.__module__.startswith(f"regcore.papers.{paper}.") and draw.__doc__


@pytest.mark.parametrize("paper", PAPERS)
def test_experiments_need_what_the_study_has(plan, paper):
    planned = plan.papers[paper]
    sweeps = {sweep.name: sweep.entries for sweep in planned.sweeps}
    for experiment in planned.experiments:
        for kind, names in vars(experiment.needs).items():
            assert set(names) <= set(sweeps if kind == "sweeps" else plan.entries), (experiment.name, kind)
    assert {name for entries in sweeps.values() for name in entries} <= set(plan.entries)


@pytest.mark.parametrize("paper", PAPERS)
def test_no_variant_is_made_in_vain(plan, paper):
    planned = plan.papers[paper]
    used = {name for one in planned.experiments for names in vars(one.needs).values() for name in names}
    used |= {name for sweep in planned.sweeps if sweep.name in used for name in sweep.entries}
    further_starts = {"vm-diff-2"}  # Tables VIII and IX show the first alone; nothing trains it
    assert set(planned.variants) - further_starts <= used
    assert {sweep.name for sweep in planned.sweeps} <= used
