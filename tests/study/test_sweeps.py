"""HyperMorph in a study: training, its tuning, sweeps of landscapes, and how experiments are planned."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.hypernetworks import coarsely_tuned
from support.marks import marks_its_tests
from support.paths import ROOT
from support.snakemake import snakemake
from support.studies import dice_by_hand, prepared, small_study

from regcore.errors import InputError
from regcore.experiments import hypermorph
from regcore.experiments.hypermorph import by_grid, dense
from regcore.experiments.settings import HyperMorphExperiments
from regcore.models.trained import load_model
from regcore.settings.yaml import load_yaml
from regcore.study.plan import plan_study
from regcore.study.stages.sweep import write_sweep
from regcore.study.stages.train import labelled_pairs, pairs_of_split, train
from regcore.training.validation import validate_network
from regcore.tuning import amortised
from regcore.tuning.amortised import rows_of
from regcore.tuning.grid import grid, names
from regcore.tuning.optima import curve, optimum

FAST = {"steps": 4, "validate_every": 2, "architecture": "paper-diff", "batch_size": 2}
EXPERIMENTS = {
    "hypermorph": {
        "settings": FAST | {"image_sigma": 0.2},
        "network": {"learning_rate": 0.002},
        "hypernetwork": {"learning_rate": 0.001, "hidden": [8]},
        "lambda": {"mse": [0.3, 0.9]},
        "replicates": {"count": 2, "lambda": {"mse": [0.5]}},
        "landscapes": {"gamma": {"lambda": [0.2, 0.8], "gamma": [0, 1], "observed": "all"}},
    }
}


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def plan(tmp_path_factory):
    """A study whose networks for λ are trained."""
    folder = tmp_path_factory.mktemp("study")
    config = small_study(folder, {"identity": {}}).config
    config = {key: value for key, value in config.items() if key != "unavailable"}
    made = plan_study(config | {"experiments": EXPERIMENTS}, results=str(folder / "results"))
    prepared(made)
    for name in (*made.sweeps[dense("mse")].entries, *made.sweeps[by_grid("mse")].entries):
        train(made, name, made.folder / "models" / name, folder / "checkpoints" / name)
    return made


@pytest.fixture(scope="module")
def swept(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    with coarsely_tuned():
        for name in (dense("mse"), by_grid("mse")):
            write_sweep(plan, name, folder / f"{name}.parquet", folder / f"{name}.csv")
    return folder


def asked(values):
    """What a study asks of the paper, with all defaults."""
    return HyperMorphExperiments.read(values, hypermorph.WHERE)


def test_the_networks_of_the_experiments(plan):
    assert {name: sweep.entries for name, sweep in plan.sweeps.items()} == {
        "mse-hyper": ["hyper-mse", "hyper-mse-2"],
        "mse-grid": ["grid-mse-lam~0.3", "grid-mse-lam~0.5", "grid-mse-lam~0.9", "grid-mse-2-lam~0.5"],
        "gamma-hyper": ["hyper-gamma"],
        "gamma-grid": [f"grid-gamma-lam~{a}_gamma~{g}" for a in (0.2, 0.8) for g in (0, 1)],
    }
    point = plan.entries["grid-gamma-lam~0.8_gamma~1"].settings
    assert (point["lambda"], point["gamma"], point["weighting"], point["observed"]) == (0.8, 1, "convex", "all")
    assert point["learning_rate"] == 0.002 and plan.entries["grid-gamma-lam~0.8_gamma~1"].method == "voxelmorph"
    hyper = plan.entries["hyper-mse-2"].settings
    assert hyper["prior"] == {"lambda": [0, 1]} and hyper["replicate"] == 2 and hyper["learning_rate"] == 0.001
    same = ("architecture", "image_sigma", "steps", "batch_size")
    assert [hyper[key] for key in same] == [point[key] for key in same]
    needs = {name: plan.papers["hypermorph"][name].needs for name in ("fig3", "fig4", "fig7", "table1")}
    assert needs["fig3"].sweeps == ["mse-hyper", "mse-grid"] and needs["fig4"].sweeps == ["gamma-hyper", "gamma-grid"]
    assert needs["fig7"].sweeps == ["mse-hyper"]
    assert set(needs["table1"].models) == {name for sweep in plan.sweeps.values() for name in sweep.entries}


@pytest.mark.parametrize(
    ("changes", "labelled", "complaint"),
    [
        ({"lambda": {}}, True, "'lambda' and 'landscapes' are both empty"),
        ({"landscapes": {"gamma": {}}}, False, "landscapes.gamma: γ needs labels"),
        ({"landscapes": {"window": {"range": [3, 9], "window": [3, 7, 11]}}}, True, r"window: \[11\] must lie within"),
        ({"landscapes": {"window": {"range": [3, 9], "window": [3, 4]}}}, True, r"\[4\] must .* windows must be odd"),
        ({"replicates": {"count": 2, "lambda": {"nmi": [0.5]}}}, True, "replicates.lambda: nmi is not among"),
    ],
)
def test_experiments_that_cannot_be(changes, labelled, complaint):
    settings = {"lambda": {"mse": [0, 1]}, "replicates": {"count": 4, "lambda": {}}, "landscapes": {}}
    with pytest.raises(InputError, match=complaint):
        hypermorph.landscapes(asked(settings | changes), labelled)


def test_a_landscape_of_two_hyperparameters_needs_none_of_one():
    settings = EXPERIMENTS["hypermorph"] | {"lambda": {}, "replicates": {"lambda": {}}}
    gamma = settings["landscapes"]["gamma"] | {"similarity": "mse", "range": [0, 1]}
    found = hypermorph.experiments(asked(settings | {"landscapes": {"gamma": gamma}}), labelled=True)
    assert found.names == ["fig4", "table1"]
    assert sorted(sweep.name for sweep in found.sweeps) == ["gamma-grid", "gamma-hyper"]


@pytest.mark.slow
def test_a_value_that_the_study_sets_is_kept_and_the_others_are_tuned(tmp_path):
    both = {"lambda": [0, 1], "gamma": [0, 1]}
    own = {"method": "hypermorph", "hidden": [8], **FAST}
    methods = {"half": {**own, "prior": both, "lambda": 0.25}, "whole": {**own, "lambda": 0.75}}
    made = prepared(small_study(tmp_path, methods))
    for name in methods:
        train(made, name, tmp_path / name, tmp_path / "checkpoints" / name)
    half, whole = (load_model(tmp_path / name) for name in methods)
    assert half.method.values["lambda"] == 0.25 and 0 <= half.method.values["gamma"] <= 1
    assert whole.method.values == {"lambda": 0.75} and "tuned" not in whole.facts
    labelled, codes = labelled_pairs(made, pairs_of_split(made, "validation"))
    assert (
        half.facts["best_validation_dice"] == validate_network(half.method, half.method.module, labelled, codes)["dice"]
    )


def test_every_point_of_a_grid_has_a_name_of_its_own():
    points = grid({"lambda": [0, 0.25], "window": [3, 7, 11]})
    assert len(points) == 6 and points["window"].tolist() == [3, 7, 11] * 2
    assert names(points)[:2] == ["lam~0.0_window~3", "lam~0.0_window~7"] and len(set(names(points))) == 6


def test_a_trained_hypernetwork_registers_at_what_its_tuning_found(plan):
    model = load_model(plan.folder / "models" / "hyper-mse")
    tuned = model.facts["tuned"]
    assert model.method.values == tuned["values"] and 0 <= tuned["values"]["lambda"] <= 1
    assert tuned["pairs"] == len(plan.pairs_of("validation"))
    chosen = plan.pairs_of("validation").iloc[0]
    dice_by_hand(plan, model, chosen["fixed"], chosen["moving"])  # registers
    labelled, codes = labelled_pairs(plan, pairs_of_split(plan, "validation"))
    table = amortised.sweep(model.method, labelled, codes, rows_of(model.method, 11))
    best = curve(table, ["lambda"], "overlap")["mean"].max()
    assert tuned["overlap"] >= best - 1e-4


def test_a_sweep_scores_what_registration_would_give(plan, swept):
    """Against a registration by the same model at the same λ, scored by hand."""
    rows = pd.read_parquet(swept / "mse-hyper.parquet")
    pair = plan.pairs_of("test").iloc[0]
    model = load_model(plan.folder / "models" / "hyper-mse-2")
    for value in (0.25, 1.0):
        at_value = replace(model, method=model.method.at({"lambda": value}))
        mine = rows[(rows["entry"] == "hyper-mse-2") & (rows["split"] == "test") & (rows["lambda"] == value)]
        mine = mine[(mine["fixed"] == pair["fixed"]) & (mine["moving"] == pair["moving"]) & (mine["metric"] == "dice")]
        assert mine["label"].tolist() == [1] and mine["replicate"].tolist() == [2]
        assert mine["value"].item() == pytest.approx(dice_by_hand(plan, at_value, pair["fixed"], pair["moving"]))


def test_a_sweep_of_a_grid_has_each_network_at_its_point(plan, swept):
    rows = pd.read_parquet(swept / "mse-grid.parquet")
    points = rows.groupby("entry")["lambda"].unique().apply(list).to_dict()
    expected = {"lam~0.3": 0.3, "lam~0.5": 0.5, "lam~0.9": 0.9}
    assert points == {f"grid-mse-{name}": [value] for name, value in expected.items()} | {"grid-mse-2-lam~0.5": [0.5]}
    assert set(rows["split"]) == {"validation", "test"} and set(rows["metric"]) == {"dice", "overlap"}
    assert pd.read_csv(swept / "mse-grid.csv").empty
    pair = plan.pairs_of("test").iloc[0]
    model = load_model(plan.folder / "models" / "grid-mse-lam~0.9")
    mine = rows[(rows["entry"] == "grid-mse-lam~0.9") & (rows["split"] == "test") & (rows["metric"] == "dice")]
    mine = mine[(mine["fixed"] == pair["fixed"]) & (mine["moving"] == pair["moving"])]
    assert mine["value"].item() == pytest.approx(dice_by_hand(plan, model, pair["fixed"], pair["moving"]))


def test_what_tuning_found_stands_beside_the_sweep(swept):
    found = pd.read_csv(swept / "mse-hyper.csv")
    rows = pd.read_parquet(swept / "mse-hyper.parquet")
    assert found["entry"].tolist() == ["hyper-mse", "hyper-mse-2"]
    for row in found.itertuples():
        mine = rows[(rows["entry"] == row.entry) & (rows["split"] == "validation")]
        for metric, value in (("overlap", row.lambda_by_overlap), ("dice", row.lambda_by_dice)):
            means = curve(mine, ["lambda"], metric).set_index("lambda")["mean"]
            assert means[value] == pytest.approx(means.max())
        assert row.lambda_by_dice_low <= row.lambda_by_dice_high


def known_sweep(tops, spread=0.0):
    """A sweep of pairs whose Dice is a parabola of λ with the given tops."""
    generator = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"lambda": np.linspace(0, 1, 21), "fixed": f"f{n}", "moving": "m", "label": 1, "metric": "dice"})
        for n in range(len(tops))
    ]
    for frame, top in zip(frames, tops, strict=True):
        frame["value"] = 0.8 - (frame["lambda"] - top) ** 2 + spread * generator.standard_normal(21)
    return pd.concat(frames, ignore_index=True)


def test_the_optimum_of_a_sweep_and_its_interval():
    found = optimum(known_sweep([0.2, 0.4, 0.6]), ["lambda"])
    assert found.values == {"lambda": pytest.approx(0.4)} and found.score == pytest.approx(0.8 - 2 * 0.04 / 3)
    low, high = found.interval["lambda"]
    assert 0.2 - 1e-9 <= low < 0.4 < high <= 0.6 + 1e-9
    alone = optimum(known_sweep([0.25]), ["lambda"])
    assert alone.interval["lambda"] == (alone.values["lambda"],) * 2 == (pytest.approx(0.25),) * 2


def test_pairs_without_a_label_do_not_move_the_optimum():
    table = known_sweep([0.2, 0.4, 0.6])
    table.loc[table["fixed"] == "f0", "value"] = np.nan
    found = optimum(table, ["lambda"])
    assert found.values["lambda"] == pytest.approx(0.5)
    low, high = found.interval["lambda"]
    assert low >= 0.4 - 1e-9 and high <= 0.6 + 1e-9


def test_a_plateau_has_its_middle_as_optimum():
    table = known_sweep([0.5])
    table["value"] = np.where(table["lambda"].between(0.3, 0.7), 0.8, 0.5)
    assert optimum(table, ["lambda"]).values["lambda"] == pytest.approx(0.5)


def test_an_experiment_with_an_unknown_similarity_is_refused(tmp_path):
    config = small_study(tmp_path, {"identity": {}}).config
    config = {key: value for key, value in config.items() if key != "unavailable"}
    with pytest.raises(InputError, match="'mind'"):
        plan_study(config | {"experiments": {"hypermorph": {"lambda": {"mind": [0, 1]}}}})


@pytest.mark.workflow
def test_snakemake_plans_both_kinds_of_networks_and_their_sweeps(tmp_path):
    config = {
        "study": "paper",
        "cohort": {"embedded": {"ndim": 2, "spacing": 3, "train": 8, "validation": 2, "test": 3}},
        "pairs": {"validation": 2, "test": 3},
        "methods": {"identity": None},
        "experiments": EXPERIMENTS,
    }
    done = snakemake(tmp_path, "-n", "--cores", "2", "hypermorph", config=config)
    assert done.returncode == 0, done.output
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.output, flags=re.MULTILINE))
    assert counts["train"] == str(2 + 3 + 1 + 1 + 4) and counts["sweep"] == "4"
    assert (counts["experiment_table"], counts["experiment_figure"]) == ("1", "5")
    assert not {"register", "evaluate", "tables"} & set(counts)


@pytest.mark.parametrize(
    "study", [f"hypermorph{which}" for which in ("", "-landscapes", "-labels", "-contrasts", "-tasks", "-convergence")]
)
def test_the_studies_of_the_paper_can_be_planned(study):
    made = plan_study(load_yaml(ROOT / "config" / "studies" / f"{study}.yaml"))
    trained = [name for name, entry in made.entries.items() if entry.learned]
    settings = [made.entries[name].made.settings for name in trained]
    for key in ("architecture", "similarity", "select", "schedule", "batch_size", "image_sigma", "weighting"):
        per_landscape = {
            (name.split("-")[1], chosen.value(key)) for name, chosen in zip(trained, settings, strict=True)
        }
        assert len(per_landscape) == len({name.split("-")[1] for name in trained}), f"{key} differs between both kinds"
