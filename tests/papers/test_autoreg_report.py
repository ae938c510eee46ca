"""The experiments of AutoReg: a whole small study with its tables and figures, and numbers from known scores."""

import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support.marks import marks_its_tests
from support.models import write_model_json
from support.studies import prepared, small_study

from regcore.autoreg.search import FOUND
from regcore.commands.cli import main
from regcore.errors import InputError
from regcore.experiments import Needs
from regcore.experiments import autoreg as paper
from regcore.networks.architecture import CANDIDATES, LAMBDAS, Architecture
from regcore.papers.autoreg import figures as autoreg
from regcore.papers.write import show, write_experiment
from regcore.reporting.architectures import headings, search_figure
from regcore.study.plan import plan_study
from regcore.study.results import Results
from regcore.study.settings import StudySettings
from regcore.study.stages.architecture import found_values, search_architecture
from regcore.study.stages.register import register_pairs
from regcore.study.stages.score import evaluate_method
from regcore.study.stages.train import train

SIZED = {"channels": 1, "separable": "true", "downsampling": "first"}
MODEL = {"network": "cells", "architecture": "manual-small", **dict.fromkeys(LAMBDAS, 1), **SIZED}
FAST = {"steps": 1, "validate_every": 1, "learning_rate": 0.01}
EXPERIMENTS = {
    "autoreg": {
        "settings": {**FAST, "channels": 2},
        "search": {"epoch": 1, "warmup": 1, "epochs": 2, "learning_rate": 0.01, "architecture_rate": 0.1},
        "voxelmorph": {**FAST, "width": 0.25},
        "starts": 2,
        "controls": ["random"],
    }
}


def settings(**changes):
    config = {"study": "x", "cohort": {"table": "x"}, "methods": {"syn": None}, "experiments": {"autoreg": changes}}
    return StudySettings.read(config, "configuration").experiments.autoreg


# ---- what is planned


def test_what_a_study_trains_and_searches():
    planned = paper.experiments(settings(starts=2), ["affine"])
    variants = planned.variants
    assert {name: values["autosearch"]["what"] for name, values in variants.items() if "autosearch" in values} == {
        name + number: what
        for number in ("", "-2")
        for name, what in {
            "autoreg-cells": ["feature", "deformation"],
            "autoreg": ["objective"],
            "manual-medium-objective": ["objective"],
            "vm-autoreg": ["objective"],
            "random": ["feature", "deformation"],
            "tpe": ["feature", "deformation"],
        }.items()
    }
    assert variants["autoreg-2"]["autosearch"]["start"] == "autoreg-cells-2" and variants["autoreg-2"]["replicate"] == 2
    assert (
        variants["tpe-2"]["autosearch"]["as_long_as"] == "autoreg-cells-2"
        and "start" not in variants["tpe"]["autosearch"]
    )
    assert variants["manual-large"]["architecture"] == "manual-large" and variants["with-mind"]["lambda1"] == 0
    assert planned["table9"].needs.scores[0] == "affine"
    assert "table2" not in planned.names


def test_without_controls_their_table_is_left_out():
    planned = paper.experiments(settings(controls=[]), [])
    assert "table10" not in planned.names and "tpe" not in planned.variants


def test_a_transfer_takes_over_all_but_what_is_found_anew(tmp_path):
    write_model_json(tmp_path, method="autoreg", settings=MODEL)
    variants = paper.experiments(settings(transfer=str(tmp_path)), []).variants
    assert variants["transfer-none"]["method"] == "pretrained"
    assert variants["transfer-weights"]["autosearch"]["what"] == []
    assert variants["transfer-feature"]["autosearch"]["start"] == str(tmp_path)
    assert variants["transfer-all"]["autosearch"]["what"] == ["feature", "deformation", "objective"]


def test_what_is_transferred_must_be_there():
    with pytest.raises(InputError, match=r"experiments.autoreg\.transfer: 'nowhere' is neither"):
        paper.experiments(settings(transfer="nowhere"), [])


# ---- a whole study


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def plan(tmp_path_factory):
    """A study with everything that its experiments need."""
    folder = tmp_path_factory.mktemp("study")
    other = prepared(small_study(folder, {"affine": None, "autoreg": {**FAST, "channels": 2}}, train_subjects=2))
    train(other, "autoreg", folder / "other", folder / "checkpoints" / "other")
    config = {key: value for key, value in other.config.items() if key != "unavailable"}
    config |= {"methods": {"affine": {}}}
    experiments = {"autoreg": EXPERIMENTS["autoreg"] | {"transfer": str(folder / "other")}}
    made = prepared(plan_study(config | {"experiments": experiments}, results=str(folder / "results")))
    planned = made.papers["autoreg"]
    searches = {name: entry.cell_search for name, entry in made.entries.items() if entry.cell_search is not None}
    waiting = list(searches)
    while waiting:
        for name in list(waiting):
            if not set(searches[name].others) & set(waiting):
                search_architecture(made, name, made.files.architecture(name), folder / "checkpoints" / name)
                waiting.remove(name)
    for name in planned.variants:
        if made.entries[name].learned:
            train(made, name, made.folder / "models" / name, folder / "checkpoints" / name, found_values(made, name))
    (made.folder / "metrics").mkdir()
    for name in {entry for one in planned.experiments for entry in one.needs.scores}:
        register_pairs(made, name, list(made.pairs_of("test")["pair"]), made.entries[name].model_folder)
        evaluate_method(made, name).to_parquet(made.folder / "metrics" / f"{name}.parquet")
    return made


NAMES = [*(f"table{n}" for n in (1, 2, 3, 4, 5, 8, 9, 10)), *(f"fig{n}" for n in (3, 4, 6, 15))]


def test_these_are_all_experiments(plan):
    assert set(plan.papers["autoreg"].names) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_written(plan, name, tmp_path):
    outputs = {"csv": tmp_path / "x.csv", "html" if name.startswith("table") else "png": tmp_path / "x.out"}
    write_experiment(Results(plan), "autoreg", name, outputs)
    assert len(pd.read_csv(tmp_path / "x.csv")) > 0 and (tmp_path / "x.out").stat().st_size > 500
    plt.close("all")


def test_table_1_sums_the_search_and_the_training(plan):
    table, _ = show(Results(plan), "autoreg", "table1")
    rows = table.set_index("what")
    parts = ["search, feature", "search, deformation", "search, objective", "training, AutoReg"]
    assert rows.at["search + training", "cpu_seconds"] == pytest.approx(rows.loc[parts, "cpu_seconds"].sum())
    assert rows.at["search + training", "bytes"] == rows.loc[parts, "bytes"].max()
    assert rows.at["search, feature", "bytes_ratio"] > 1


def test_both_have_the_same_cells(plan):
    cells, whole = (Architecture.read(plan.files.architecture(name) / FOUND) for name in ("autoreg-cells", "autoreg"))
    assert cells == whole


def test_table_10_spends_the_same_time(plan):
    table, _ = show(Results(plan), "autoreg", "table10")
    seconds = table.set_index("entry")["search_cpu_seconds"]
    own = seconds["autoreg-cells"]  # both are means over the starts, each as long as the search with its start
    assert own - 0.1 <= seconds["random"] <= 1.5 * own + 1.5


def test_figure_3_marks_what_was_chosen(plan):
    table, _ = show(Results(plan), "autoreg", "fig3")
    assert len(table) == 12 * len(CANDIDATES)
    edges = table.groupby(["cells", "cell", "edge"])
    assert (edges["chosen"].sum() == 1).all()
    assert (table.loc[edges["weight"].idxmax(), "chosen"]).all()
    np.testing.assert_allclose(edges["weight"].sum(), 1, atol=1e-5)
    plt.close("all")


def test_figure_15_draws_every_start(plan):
    table, figure = show(Results(plan), "autoreg", "fig15")
    assert list(table["search"].unique()) == ["start 1", "start 2"]
    assert len(figure.axes) == 2
    plt.close("all")


def test_the_report_shows_what_each_search_did(plan):
    figures = {
        name: search_figure(Results(plan).trace(name)) for name, entry in plan.entries.items() if entry.cell_search
    }
    assert len(figures["autoreg-cells"].axes) == 3 and len(figures["autoreg"].axes) == 2
    assert (
        len(figures["transfer-feature"].axes) == 3 and "not searched" in figures["transfer-feature"].axes[1].get_title()
    )
    assert "Nothing was searched" in figures["random"].axes[0].texts[0].get_text()
    plt.close("all")


def test_architectures_are_drawn_from_the_command_line(plan, tmp_path):
    large = tmp_path / "large.json"
    large.write_text(json.dumps(Architecture.uniform("7-Conv").as_json()))
    output = tmp_path / "drawn.png"
    arguments = [str(large), str(plan.files.architecture("autoreg")), "-o", str(output)]
    result = CliRunner().invoke(main, ["draw", *arguments], catch_exceptions=False)
    assert result.exit_code == 0 and output.stat().st_size > 5000
    wrong = CliRunner().invoke(main, ["draw", str(tmp_path), "-o", str(output)])
    assert wrong.exit_code == 2 and "is neither an entry with" in wrong.output
    wrong = CliRunner().invoke(main, ["draw", str(large), "-o", str(tmp_path / "drawn.jpg")])
    assert wrong.exit_code == 2 and "must end in .png" in wrong.output


# ---- known numbers


def test_starts_are_averaged_pair_by_pair(tmp_path):
    experiments = SimpleNamespace(autoreg=settings(starts=2))
    plan = SimpleNamespace(folder=tmp_path, settings=SimpleNamespace(experiments=experiments))
    (tmp_path / "metrics").mkdir()
    base = np.random.default_rng(0).uniform(0.5, 0.9, 12)
    gains = {"manual-small": 0, "manual-small-2": 0.02, "autoreg": 0.03, "autoreg-2": 0.01}
    for name, gain in gains.items():
        rows = [(f"p{n}", 1, "dice", value + gain) for n, value in enumerate(base)]
        rows += [(f"p{n}", -1, "folds_percent", gain) for n in range(12)]
        pd.DataFrame(rows, columns=["pair", "label", "metric", "value"]).to_parquet(
            tmp_path / "metrics" / f"{name}.parquet"
        )
        write_model_json(tmp_path / "models" / name, training={"parameters": 100})
    table, html = autoreg.compared(Results(plan), Needs(scores=list(gains)), "manual-small")
    rows = table.set_index("entry")
    assert rows.at["autoreg", "dice_mean"] == pytest.approx(base.mean() + 0.02)
    assert rows.at["autoreg", "dice_sd_starts"] == pytest.approx(0.02 / 2**0.5)
    assert rows.at["autoreg", "dice_sd_pairs"] == pytest.approx(base.std(ddof=1))
    assert rows.at["autoreg", "mean_difference"] == pytest.approx(0.01) and "+1.00 (" in html
    assert rows.at["autoreg", "folds_percent"] == pytest.approx(0.02)
    assert rows.at["autoreg", "p_wilcoxon"] < 0.001 and "Manual-Small" in html


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["results/a/architectures/autoreg", "results/b/architectures/autoreg"], ["a", "b"]),
        (["results/a/architectures/autoreg"], ["autoreg"]),
        (["m/a", "m/b/c"], ["a", "b/\nc"]),
        (["m", "m/a"], ["m", "a"]),
        (["a.json", "a.json"], ["a.json", "a.json"]),
    ],
)
def test_drawn_architectures_are_headed_by_what_tells_their_paths_apart(paths, expected):
    assert headings([Path(path) for path in paths]) == expected
