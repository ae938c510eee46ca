"""The experiments of TM-SPR: a whole small study with its tables and figures, and numbers from known scores."""

import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from support.hypernetworks import coarsely_tuned
from support.marks import marks_its_tests
from support.studies import prepared, small_study

from regcore.errors import InputError
from regcore.experiments import Needs
from regcore.experiments import spr as paper
from regcore.images.volume import Grid, Volume
from regcore.papers.spr import figures as spr
from regcore.papers.spr import weights
from regcore.papers.write import show, write_experiment
from regcore.reporting import searches
from regcore.study.plan import plan_study
from regcore.study.results import Results
from regcore.study.settings import StudySettings
from regcore.study.stages.register import register_pairs
from regcore.study.stages.score import evaluate_method
from regcore.study.stages.sweep import write_sweep
from regcore.study.stages.train import train
from regcore.study.stages.tune import collect, run_trial
from regcore.study.stages.weights import correlation, measures, write_weights

FAST = {"steps": 2, "validate_every": 1, "learning_rate": 0.01}
EXPERIMENTS = {
    "spr": {
        "settings": {**FAST, "size": "tiny", "norm": "instance", "time_steps": 1},
        "voxelmorph": {**FAST, "width": 0.25},
        "hypermorph": {"hidden": [4]},
        "hypernetwork": {"hidden": [8, 4]},
        "search": {"trials": 3, "startup_trials": 1, "warmup": 1},
        "grid": {"lambda_max": [1, 2], "alpha": [0, 0.1]},
        "alphas": [0.1, 10],
        "labels": True,
        "all_weights": {},
    }
}


def settings(**changes):
    config = {"study": "x", "cohort": {"table": "x"}, "methods": {"syn": None}, "experiments": {"spr": changes}}
    return StudySettings.read(config, "configuration").experiments.spr


# ---- what is planned


def test_what_a_study_trains_and_searches():
    planned = paper.experiments(settings(grid={"lambda_max": [1, 2], "alpha": [0]}, alphas=[1]), ["affine"], True)
    searched = {name: set(values["tune"]["ranges"]) for name, values in planned.variants.items() if "tune" in values}
    assert searched == {
        "tm-spr-beta": {"lambda_max", "alpha"},
        "tm-spr-gaussian": {"lambda_mean", "sigma"},
        "transmorph-searched": {"lambda"},
        "tm-spr-grid": {"lambda_max", "alpha"},
    }
    assert planned.variants["transmorph"]["lambda"] == 1
    assert planned.variants["hyper-tm-spr"]["ranges"] == {"lambda_max": [0, 5], "alpha": [0, 0.2]}
    assert planned.variants["tm-spr-alpha-1"]["lambda_max"] == 2.75
    assert planned["table2"].needs.scores[0] == "affine" and "tm-spr-grid" not in planned["table2"].needs.scores
    assert "hyper-tm-spr-labels" not in planned.variants and "fig10" not in planned.names


def test_without_a_grid_and_single_networks_their_experiments_are_left_out():
    assert not {"table7", "fig14"} & set(paper.experiments(settings(), [], True).names)


def test_semi_supervised_networks_need_labels():
    with pytest.raises(InputError, match=r"experiments.spr.labels: it needs labels"):
        paper.experiments(settings(labels=True), [], False)


# ---- a whole study


def train_and_sweep(plan, checkpoints):
    for name in plan.papers["spr"].variants:
        model = plan.folder / "models" / name
        if (search := plan.entries[name].search) is not None:
            for slot in range(search.trials):
                run_trial(plan, name, slot, checkpoints / "trial.json", checkpoints / name / str(slot))
            collect(plan, name, model)
        else:
            train(plan, name, model, checkpoints / name)
    (plan.folder / "sweeps").mkdir()
    for name in plan.sweeps:
        write_sweep(plan, name, plan.files.sweep(name), plan.files.optima(name))


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def plan(tmp_path_factory):
    """A study with everything that its experiments need."""
    folder = tmp_path_factory.mktemp("study")
    config = small_study(folder, {"affine": None}, train_subjects=2).config
    config = {key: value for key, value in config.items() if key != "unavailable"}
    made = prepared(plan_study(config | {"experiments": EXPERIMENTS}, results=str(folder / "results")))
    with coarsely_tuned():
        train_and_sweep(made, folder / "checkpoints")
    paper = made.papers["spr"]
    for name in {entry for one in paper.experiments for entry in one.needs.weights}:
        write_weights(made, name, made.files.weights(name), made.files.weight_volumes(name))
    (made.folder / "metrics").mkdir()
    for name in {entry for one in paper.experiments for entry in one.needs.scores}:
        register_pairs(made, name, list(made.pairs_of("test")["pair"]), made.folder / "models" / name)
        evaluate_method(made, name).to_parquet(made.folder / "metrics" / f"{name}.parquet")
    return made


NAMES = [*(f"table{n}" for n in (2, 5, 6, 7)), *(f"fig{n}" for n in (7, 8, 9, 10, 11, 12, 13, 14, 20))]


def test_these_are_all_experiments(plan):
    assert set(plan.papers["spr"].names) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_written(plan, name, tmp_path):
    outputs = {"csv": tmp_path / "x.csv", "html" if name.startswith("table") else "png": tmp_path / "x.out"}
    write_experiment(Results(plan), "spr", name, outputs)
    assert len(pd.read_csv(tmp_path / "x.csv")) > 0 and (tmp_path / "x.out").stat().st_size > 500
    plt.close("all")


def test_a_search_has_a_figure_of_its_own(plan):
    assert len(searches.search_figure(Results(plan), "tm-spr-beta").axes) >= 2
    assert len(searches.search_figure(Results(plan), "transmorph-searched").axes) == 2
    plt.close("all")


def test_table_5_has_what_is_best_on_the_validation_pairs(plan):
    table, html = show(Results(plan), "spr", "table5")
    rows = table.set_index("method")
    found = json.loads((plan.folder / "models" / "tm-spr-beta" / "search.json").read_text())
    assert rows.at["TM-SPR (Beta)", "lambda_max"] == found["params"]["lambda_max"]
    assert rows.at["TM-SPR (Beta)", "validation_dice"] == found["dice"]
    assert 0 <= rows.at["HyperMorph", "lambda"] <= 1 and "dense sweep" in html


def test_sweeps_leave_the_test_pairs_alone(plan):
    for name in plan.sweeps:
        assert set(pd.read_parquet(plan.folder / "sweeps" / f"{name}.parquet")["split"]) == {"validation"}


def test_table_7_compares_with_the_grid(plan):
    table, _ = show(Results(plan), "spr", "table7")
    search, grid = (table.set_index("method").loc[title] for title in ("TM-SPR (Beta)", "TM-SPR (Beta), dense grid"))
    assert grid["trials"] == 4 and grid["steps"] == 8 and grid["pruned"] == 0
    assert search["steps_ratio"] == search["steps"] / 8
    assert search["gap_points"] == pytest.approx(100 * (search["validation_dice"] - grid["validation_dice"]))


# ---- known numbers


def test_importances_that_no_trial_tells_are_said_to_be_unknown():
    results = SimpleNamespace(search=lambda name: {"importances": {}, "params": {"alpha": 0.1, "lambda_max": 2.0}})
    table, figure = searches.importances(results, {"spr": "TM-SPR"})
    assert list(table["hyperparameter"]) == ["alpha", "lambda_max"] and table["importance"].isna().all()
    (text,) = figure.axes[0].texts
    assert "alike" in text.get_text()
    plt.close("all")


def test_improvements_are_marked_as_in_the_paper():
    assert [spr.mark(points, p) for points, p in ((1, 1e-4), (1, 5e-3), (1, 0.02), (-1, 1e-9))] == ["**", "*", "", ""]


@pytest.mark.slow
def test_overlap_is_compared_pair_by_pair(tmp_path):
    """A method that is a hundredth better on each of twelve pairs is significantly so."""

    class Plan:
        folder = tmp_path

    (tmp_path / "metrics").mkdir()
    generator = np.random.default_rng(0)
    base = generator.uniform(0.5, 0.9, 12)
    for name, gain in (("transmorph", 0), ("tm-spr-beta", 0.01)):
        rows = [(f"p{n}", 1, "dice", value + gain + 1e-4 * n) for n, value in enumerate(base)]
        rows += [(f"p{n}", -1, metric, 0.25) for n in range(12) for metric in ("folds_percent", "ndv_percent")]
        pd.DataFrame(rows, columns=["pair", "label", "metric", "value"]).to_parquet(
            tmp_path / "metrics" / f"{name}.parquet"
        )
    table, html = spr.overlap_and_folds(Results(Plan()), Needs(scores=["transmorph", "tm-spr-beta"]))
    rows = table.set_index("entry")
    assert rows.at["tm-spr-beta", "points_over_backbone"] == pytest.approx(1)
    assert rows.at["tm-spr-beta", "p_wilcoxon"] < 0.001 and rows.at["tm-spr-beta", "pairs"] == 12
    assert html.count("**") == 1 and "0.25 %" in html


def test_what_does_not_vary_has_no_correlation():
    a = np.random.default_rng(1).normal(size=100)
    assert correlation(a, -2 * a) == pytest.approx(-1)
    assert np.isnan(correlation(a, np.ones(100))) and np.isnan(correlation(a, np.full(100, 0.1, "f4").astype(float)))


def test_measures_count_only_what_is_inside():
    """A weight that falls where displacement grows, inside; the opposite outside."""
    x = torch.linspace(0, 1, 20).expand(10, 20)
    displacement = torch.stack([torch.zeros(10, 20), x])
    inside = np.zeros((10, 20), bool)
    inside[:5] = True
    w = torch.where(torch.from_numpy(inside), 1 - x, x)
    found = measures(w, displacement, inside)
    assert found["with_displacement"] == pytest.approx(-1)
    assert found["mean_weight"] == pytest.approx(0.5) and found["low_weight"] < 0.06
    assert abs(found["with_displacement_everywhere"]) < 0.01
    assert np.isnan(found["with_gradient"]), "the gradient is the same everywhere"


def test_local_variance_is_that_of_windows():
    data = np.random.default_rng(2).random((12, 12)).astype("f4")
    found = weights.local_variance(Volume(data, Grid((12, 12), np.eye(3))))
    assert found[6, 6] == pytest.approx(data[4:9, 4:9].astype(float).var(), abs=1e-6)
