"""The experiments of the VoxelMorph paper: their variants, their numbers from known scores, and their plan."""

import json
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from support.models import write_model_json
from support.snakemake import snakemake

from regcore.cohort.labels import drawn_codes, observed_classes, structures
from regcore.cohort.settings import LabelSettings
from regcore.experiments import voxelmorph as paper
from regcore.methods import make_method, method_info
from regcore.papers.voxelmorph import figures as reporting
from regcore.papers.write import show, write_experiment
from regcore.study.results import Results
from regcore.study.settings import StudySettings

CLASSICAL = ["affine", "syn"]
LABELS = pd.DataFrame(
    {
        "index": [2, 5, 30, 41, 44, 60],
        "name": ["Left-Pallidum", "Left-Caudate", "Right-Caudate", "Right-Pallidum", "Brain-Stem", "left cortex"],
        "group": ["basal", "basal", "basal", "basal", "other", "other"],
    }
)


def settings(**changes):
    """The settings of the experiments, with every default."""
    config = {"study": "x", "cohort": {"table": "x"}, "methods": {"syn": None}, "experiments": {"voxelmorph": changes}}
    return StudySettings.read(config, "configuration").experiments.voxelmorph


# ---- variants


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("own", [{}, {"preset": "paper", "width": 3, "steps": 7}, {"preset": "code"}], ids=str)
def test_every_variant_is_a_method_and_every_name_is_one_of_them(own, labelled):
    chosen = settings(settings=own, refine={"iterations": 7})
    pairs = list(paper._variants(chosen, 1000, labelled))
    planned = paper.experiments(chosen, CLASSICAL, 1000, labelled)
    assert len(pairs) == len(planned.variants), "no name twice"
    used = {name for one in planned.experiments for name in [*one.needs.scores, *one.needs.models]}
    assert used == {*planned.variants, *CLASSICAL}, "nothing is missing, and nothing is made in vain"
    for name, values in planned.variants.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        made = make_method(values["method"], {k: v for k, v in values.items() if k != "method"}, name)
        if values["method"] == "refine":
            assert method_info(planned.variants[values["start"]]["method"]).learned
            assert made.settings.iterations == 7
        else:
            assert made.settings.width == own.get("width", 1) * (2 if "-x2" in name else 1)
            assert made.settings.similarity == ("lncc" if name.startswith("vm-lncc") else "mse")
            assert made.settings.steps == own.get("steps", 150000)


def test_each_experiment_varies_what_it_is_about():
    chosen = settings(chosen_lambda={"mse": 0.03, "lncc": 1.5}, training_subjects=[5, 20], gamma=[0.1, "infinity"])
    variants = paper.experiments(chosen, CLASSICAL, 30, True).variants
    assert variants["vm-mse"]["lambda"] == 0.03 and variants["vm-lncc"]["lambda"] == 1.5
    plain = variants["vm-mse"]
    assert variants["vm-mse-lambda-0.005"] == {k: v for k, v in plain.items() if k != "width"} | {"lambda": 0.005}
    small = variants["vm-mse-n5"]
    assert (small["training_subjects"], small["lambda"], small["similarity"]) == (5, 0.03, "mse")
    labelled = variants["vm-mse-half3-gamma-infinity"]
    assert (labelled["observed"], labelled["observed_draw"], labelled["gamma"]) == ("half", 3, "infinity")
    assert labelled["lambda"] == 0.03
    assert variants["vm-lncc-x2-inst"] == {"method": "refine", "start": "vm-lncc-x2"}


def test_only_sizes_below_that_of_the_cohort_are_trained_beside_it():
    chosen = settings(training_subjects=[20, 5, 30, 100])
    assert paper.sizes(chosen, 30) == [5, 20]
    planned = paper.experiments(chosen, CLASSICAL, 30, True)
    needs = planned["fig8"].needs
    assert needs.models == ["vm-mse-n5", "vm-mse-n20", "vm-mse"]
    assert needs.scores == [name for size in needs.models for name in (size, f"{size}-inst")]
    assert "vm-mse-n30" not in planned.variants


def test_without_labels_no_gamma_is_varied():
    planned = paper.experiments(settings(), CLASSICAL, 30, False)
    assert not any("gamma" in name for name in planned.variants)
    assert not any("gamma" in values for values in planned.variants.values())
    assert planned.names == ["fig5", "fig7", "fig8", "table1", "table2", "table3"]


def test_the_draws_of_a_scenario_are_as_many_as_the_settings_say():
    chosen = settings(folds={"one": 3, "half": 2}, gamma=[0.5])
    names = [name for name in paper.experiments(chosen, [], 30, True).variants if "gamma" in name]
    counts = {scenario: sum(f"-{scenario}" in name for name in names) for scenario in paper.SCENARIOS}
    assert counts == {"one": 3, "half": 2, "all": 1, "groups": 1}


# ---- the labels that training sees


def test_a_structure_is_a_name_without_its_side():
    expected = {2: "Pallidum", 5: "Caudate", 30: "Caudate", 41: "Pallidum", 44: "Brain-Stem", 60: "cortex"}
    assert structures(LABELS).to_dict() == expected


def test_draws_of_one_structure_differ_and_take_both_sides():
    draws = [drawn_codes(LABELS, "one", draw) for draw in (1, 2, 3, 4)]
    assert sorted(map(sorted, draws)) == [[2, 41], [5, 30], [44], [60]]
    assert draws == [drawn_codes(LABELS, "one", draw) for draw in (1, 2, 3, 4)]
    assert drawn_codes(LABELS, "one", 5) == draws[0], "then it starts again"


@pytest.mark.parametrize("count", [4, 3])
def test_draws_of_half_the_structures_take_both_sides(count):
    labels = LABELS[: count + 2]
    draws = [drawn_codes(labels, "half", draw) for draw in range(1, 9)]
    names = structures(labels)
    for codes in draws:
        assert len(set(names[codes])) == 2
        assert set(codes) == {code for code in labels["index"] if names[code] in set(names[codes])}
    assert draws == [drawn_codes(labels, "half", draw) for draw in range(1, 9)]
    assert len({tuple(codes) for codes in draws}) > 1


@pytest.mark.parametrize("observed", ["one", "half"])
def test_drawn_labels_become_classes(observed):
    for draw in (1, 2):
        classes = observed_classes(LABELS, observed, "here", draw)
        assert sorted(classes) == sorted(drawn_codes(LABELS, observed, draw))
        assert sorted(classes.values()) == list(range(1, len(classes) + 1))


# ---- tables and figures from known scores

CHOSEN = settings(
    **{"lambda": {"mse": [0.05, 0.01, 0.02], "lncc": [2, 1]}},
    training_subjects=[3, 5],
    gamma=[0.1, "infinity"],
    folds={"one": 4, "half": 2},
)
EXPERIMENTS = ("table1", "table2", "table3", "table4", "fig5", "fig7", "fig8", "fig9")
PAIRS = ["p", "q", "r"]
ON_GPU = ("vm-mse", "vm-lncc-x2-inst")


class Scores:
    """Scores of every entry, random but known; the brain stem is in none of the images of pair r."""

    def __init__(self):
        self.generator = np.random.default_rng(0)
        self.dice, self.seconds, self.folds, self.training = {}, {}, {}, {}

    def metrics(self, name) -> pd.DataFrame:
        dice = pd.DataFrame(self.generator.uniform(0.3, 0.9, (len(PAIRS), len(LABELS))), PAIRS, LABELS["index"])
        dice.loc["r", 44] = np.nan
        self.dice[name] = dice
        self.seconds[name], self.folds[name] = self.generator.uniform(1, 9, (2, len(PAIRS)))
        rows = [(name, pair, label, "dice", dice.at[pair, label]) for pair in PAIRS for label in LABELS["index"]]
        for pair, seconds, folds in zip(PAIRS, self.seconds[name], self.folds[name], strict=True):
            rows.append((name, pair, -1, "seconds_compute", seconds))
            rows.append((name, pair, -1, "seconds_load", 1000.0))
            rows.append((name, pair, -1, "folds_count", 100 * folds))
            rows.append((name, pair, -1, "folds_percent", folds))
        return pd.DataFrame(rows, columns=["method", "pair", "label", "metric", "value"])

    def trained(self, name, values) -> dict:
        observed = []
        if "gamma" in values:
            observed = sorted(observed_classes(LABELS, values["observed"], "x", values["observed_draw"]))
        self.training[name] = {
            "best_validation_dice": self.generator.uniform(0.3, 0.9),
            "training_dice": self.generator.uniform(0.3, 0.9),
            "subjects": values.get("training_subjects", 8),
            "observed": observed,
        }
        return self.training[name]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Results with the files that experiments read, and what is in them."""
    folder = tmp_path_factory.mktemp("study")
    planned = paper.experiments(CHOSEN, CLASSICAL, 8, True)
    scores = Scores()
    (folder / "metrics").mkdir()
    for name in dict.fromkeys(name for one in planned.experiments for name in one.needs.scores):
        scores.metrics(name).to_parquet(folder / "metrics" / f"{name}.parquet")
        fields = folder / "fields" / name
        fields.mkdir(parents=True)
        (fields / "p.json").write_text(json.dumps({"device": "cuda" if name in ON_GPU else "cpu"}))
    for name, values in planned.variants.items():
        if values["method"] == "voxelmorph":
            write_model_json(folder / "models" / name, training=scores.trained(name, values))
    LABELS.to_csv(folder / "labels.tsv", sep="\t", index=False)
    plan = SimpleNamespace(
        folder=folder,
        papers={"voxelmorph": planned},
        settings=SimpleNamespace(experiments=SimpleNamespace(voxelmorph=CHOSEN), labels=LabelSettings()),
        methods={"identity": "identity", "affine": "affine", "syn": "syn"},
        label_table=str(folder / "labels.tsv"),
        pairs_of=lambda split: pd.DataFrame({"pair": PAIRS}) if split == "test" else None,
        field=lambda name, pair: str(folder / "fields" / name / f"{pair}.nii.gz"),
    )
    yield Results(plan), scores
    plt.close("all")


def assert_spread(row, measure, values):
    """Mean and SD of known values."""
    assert row[f"{measure}_mean"] == pytest.approx(np.mean(values))
    assert row[f"{measure}_sd"] == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("experiment", "names"),
    [
        ("table1", [*CLASSICAL, "vm-mse", "vm-lncc"]),
        ("table2", [*CLASSICAL, "vm-mse", "vm-mse-inst", "vm-lncc", "vm-lncc-inst"]),
        (
            "table3",
            [*CLASSICAL, "vm-mse", "vm-lncc", "vm-mse-x2", "vm-mse-x2-inst", "vm-lncc-x2", "vm-lncc-x2-inst"],
        ),
    ],
)
def test_tables_of_methods(known, experiment, names):
    results, scores = known
    table, html = show(results, "voxelmorph", experiment)
    assert list(table["method"]) == [reporting.title(name) for name in names]
    for name, (_, row) in zip(names, table.iterrows(), strict=True):
        dice = scores.dice[name].to_numpy().ravel()
        assert_spread(row, "dice", dice[~np.isnan(dice)])
        used, unused = ("gpu", "cpu") if name in ON_GPU else ("cpu", "gpu")
        assert_spread(row, f"{used}_seconds", scores.seconds[name])
        assert np.isnan(row[f"{unused}_seconds_mean"])
        assert_spread(row, "folds", 100 * scores.folds[name])
        assert_spread(row, "folds_percent", scores.folds[name])
        assert f"<td>{row['dice_mean']:.3f} ({row['dice_sd']:.3f})</td>" in html
        assert f"<td>{row['folds_percent_mean']:.3f} ({row['folds_percent_sd']:.3f})</td>" in html
    assert html.count("<tr") == len(names) + 1
    assert "nan" not in html.lower()


def test_entries_are_called_what_the_paper_calls_them():
    assert reporting.title("vm-mse-x2-inst") == "VoxelMorph x2 (MSE) inst."
    assert reporting.title("vm-lncc") == "VoxelMorph (CC)"
    assert reporting.title("syn") == "syn"


def gamma_names(scenario, gamma):
    if gamma == 0:
        return ["vm-mse"]
    draws = {"one": 4, "half": 2}.get(scenario, 1)
    return [f"vm-mse-{scenario}{draw}-gamma-{gamma}" for draw in range(1, draws + 1)]


def fail(monkeypatch, lost):
    """Let each entry of ``lost`` fail on its pairs."""
    stored = Results.scores

    def scores(results, name):
        found, pairs = stored(results, name), lost.get(name, [])
        failed = [(name, pair, -1, "failed", float(pair in pairs)) for pair in PAIRS]
        return pd.concat([found[~found["pair"].isin(pairs)], pd.DataFrame(failed, columns=found.columns)])

    monkeypatch.setattr(Results, "scores", scores)


def test_a_method_that_failed_on_every_pair_has_empty_cells(known, monkeypatch):
    results, scores = known
    fail(monkeypatch, {"syn": PAIRS, "affine": PAIRS[1:]})
    table, html = show(results, "voxelmorph", "table1")
    assert list(table["method"])[:2] == ["affine", "syn"]
    assert table.loc[1].drop("method").isna().all()
    assert re.search(r"<td>syn</td>\s*(<td></td>\s*){5}</tr>", html)
    assert f"<td>{scores.seconds['affine'][0]:.2f}</td>" in html, "of one pair there is no spread"
    assert "nan" not in html.lower()


@pytest.mark.slow
def test_pairs_that_a_network_lost_leave_those_of_the_others_in_place(known, monkeypatch):
    results, scores = known
    first, second = gamma_names("half", 0.1)
    fail(monkeypatch, {first: ["p"], "vm-mse-all1-gamma-0.1": PAIRS, "syn": PAIRS})
    over_draws = np.mean([scores.folds[first], scores.folds[second]], axis=0)
    over_draws[0] = scores.folds[second][0]
    table, html = show(results, "voxelmorph", "table4")
    table = table.set_index(["setting", "gamma"])
    assert_spread(table.loc["half", 0.1], "folds_percent", over_draws)
    assert table.loc["all", 0.1].isna().all() and "nan" not in html.lower()
    dice = {name: scores.dice[name][scores.training[name]["observed"]].mean(axis=1) for name in (first, second)}
    dice[first]["p"] = np.nan
    table, _ = show(results, "voxelmorph", "fig9")
    table = table.set_index(["setting", "labels", "gamma"])
    assert_spread(table.loc["half", "observed", 0.1], "dice", pd.DataFrame(dice).mean(axis=1))
    assert ("all", "observed", 0.1) not in table.index, "its only network has no pair"


def test_folds_are_averaged_over_draws_and_spread_over_pairs(known):
    results, scores = known
    table, html = show(results, "voxelmorph", "table4")
    rows = [(scenario, gamma) for scenario in ("one", "half", "all", "groups") for gamma in (0, 0.1, "infinity")]
    assert list(zip(table["setting"], table["gamma"], strict=True)) == rows
    for (scenario, gamma), (_, row) in zip(rows, table.iterrows(), strict=True):
        over_draws = np.mean([scores.folds[name] for name in gamma_names(scenario, gamma)], axis=0)
        assert_spread(row, "folds_percent", over_draws)
        assert_spread(row, "folds_count", 100 * over_draws)
        assert f"<td>{row['folds_count_mean']:.1f} ({row['folds_count_sd']:.1f})</td>" in html
    assert re.findall("<th>(.*?)</th>", html) == ["Setting", "0", "0.1", "∞"]
    assert html.count("<tr") == 1 + 2 * 4


def test_boxes_show_every_structure_of_every_method(known):
    results, scores = known
    table, figure = show(results, "voxelmorph", "fig5")
    names = [*CLASSICAL, "vm-mse", "vm-lncc"]
    axis = figure.axes[0]
    assert {text.get_text() for text in axis.get_xticklabels()} == {"Pallidum", "Caudate", "Brain-Stem", "cortex"}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [reporting.title(name) for name in names]
    assert len(table) == len(names) * len(LABELS)
    for row in table.itertuples():
        values = scores.dice[row.method][row.label].dropna()
        assert row.mean == pytest.approx(values.mean())
        assert row[table.columns.get_loc("50%") + 1] == pytest.approx(values.median())


def test_validation_dice_against_lambda_marks_the_best(known):
    results, scores = known
    table, figure = show(results, "voxelmorph", "fig7")
    assert list(table["lambda"]) == [0.01, 0.02, 0.05, 1, 2]
    assert len(figure.axes) == 2
    for axis, similarity in zip(figure.axes, ("mse", "lncc"), strict=True):
        part = table[table["similarity"] == similarity]
        names = [f"vm-{similarity}-lambda-{value:g}" for value in part["lambda"]]
        expected = [scores.training[name]["best_validation_dice"] for name in names]
        np.testing.assert_allclose(part["validation_dice"], expected)
        curve, circle = axis.lines
        np.testing.assert_allclose(curve.get_xydata(), part[["lambda", "validation_dice"]])
        assert circle.get_xydata().tolist() == [[list(part["lambda"])[int(np.argmax(expected))], max(expected)]]


def test_dice_against_the_number_of_subjects(known):
    results, scores = known
    table, figure = show(results, "voxelmorph", "fig8")
    names = ["vm-mse-n3", "vm-mse-n5", "vm-mse"]
    assert list(table["subjects"]) == [3, 5, 8]
    for name, (_, row) in zip(names, table.iterrows(), strict=True):
        assert row["train_dice"] == pytest.approx(scores.training[name]["training_dice"])
        assert_spread(row, "test_dice", scores.dice[name].mean(axis=1))
        assert_spread(row, "test_inst_dice", scores.dice[f"{name}-inst"].mean(axis=1))
    assert [line.get_label() for line in figure.axes[0].lines] == ["train", "test", "test, instance-optimised"]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), table["test_dice_mean"])


def test_no_curve_is_drawn_of_training_pairs_without_labels(known, monkeypatch):
    results, scores = known
    unlabelled = {name: facts | {"training_dice": None} for name, facts in scores.training.items()}
    monkeypatch.setattr(Results, "training", lambda results, name: unlabelled[name])
    table, figure = show(results, "voxelmorph", "fig8")
    assert table["train_dice"].isna().all()
    assert [line.get_label() for line in figure.axes[0].lines] == ["test", "test, instance-optimised"]


@pytest.mark.slow
def test_dice_of_labels_that_training_saw_and_did_not_see(known):
    results, scores = known
    table, figure = show(results, "voxelmorph", "fig9")
    table = table.set_index(["setting", "labels", "gamma"])
    everything = set(LABELS["index"])
    for scenario in ("one", "half", "all", "groups"):
        draws = gamma_names(scenario, 0.1)
        seen = [set(scores.training[name]["observed"]) for name in draws]
        assert seen == [set(observed_classes(LABELS, scenario, "x", 1 + draw)) for draw in range(len(draws))]
        for gamma in (0, 0.1, "infinity"):
            names = gamma_names(scenario, gamma) * (len(draws) if gamma == 0 else 1)
            for labels in ("observed", "unobserved"):
                chosen = [codes if labels == "observed" else everything - codes for codes in seen]
                if scenario == "all" and labels == "unobserved":
                    assert (scenario, labels, gamma) not in table.index
                    continue
                curves = [
                    scores.dice[name][sorted(codes)].mean(axis=1) for name, codes in zip(names, chosen, strict=True)
                ]
                by_pair = pd.DataFrame(curves).mean()
                assert by_pair.notna().all(), "one of the draws has a score for every pair"
                assert_spread(table.loc[scenario, labels, gamma], "dice", by_pair)
    assert len(table) == 7 * 3
    assert [len(axis.containers) for axis in figure.axes] == [2, 2, 1, 2]
    for axis in figure.axes:
        dashed = [line for line in axis.lines if line.get_label() in CLASSICAL]
        expected = [scores.dice[name].mean(axis=1).mean() for name in CLASSICAL]
        np.testing.assert_allclose([line.get_ydata()[0] for line in dashed], expected)
        assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "0.1", "∞"]


@pytest.mark.slow
def test_a_pair_without_the_observed_structure_does_not_blank_the_curve(known, monkeypatch):
    """With a single draw, of the structure that pair r lacks."""
    results, scores = known
    (draw,) = [draw for draw in range(1, 5) if drawn_codes(LABELS, "one", draw) == [44]]
    monkeypatch.setattr(paper, "folds_of", lambda settings, scenario: [draw] if scenario == "one" else range(1, 2))
    table, _ = show(results, "voxelmorph", "fig9")
    row = table.set_index(["setting", "labels", "gamma"]).loc["one", "observed", 0.1]
    assert_spread(row, "dice", scores.dice[f"vm-mse-one{draw}-gamma-0.1"].loc[["p", "q"], 44])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_written_as_numbers_and_as_a_table_or_figure(known, tmp_path, experiment):
    results, _ = known
    kind = "html" if experiment.startswith("table") else "png"
    outputs = {"csv": tmp_path / f"{experiment}.csv", kind: tmp_path / f"{experiment}.{kind}"}
    write_experiment(results, "voxelmorph", experiment, outputs)
    table, _ = show(results, "voxelmorph", experiment)
    written = pd.read_csv(outputs["csv"])
    assert list(written) == list(table) and len(written) == len(table)
    content = outputs[kind].read_bytes()
    assert content.startswith(b"\x89PNG" if kind == "png" else b"<table")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in outputs.values()}


# ---- the plan


@pytest.mark.workflow
def test_snakemake_plans_every_network_of_the_paper_once(tmp_path):
    """2 plain, 2 wide, 3 λ, 2 sizes, and 2 γ for 2 + 3 + 1 + 1 choices of labels; not the study's own method."""
    experiments = {
        "lambda": {"mse": [0, 0.05], "lncc": [2]},
        "training_subjects": [3, 5, 50],
        "gamma": [0.1, "infinity"],
        "folds": {"one": 2, "half": 3},
    }
    config = {
        "study": "paper",
        "cohort": {"embedded": {"ndim": 2, "spacing": 3, "train": 8, "validation": 2, "test": 3}},
        "pairs": {"validation": 2, "test": 3},
        "methods": {"identity": None, "affine": None, "syn": None, "voxelmorph": None},
        "experiments": {"voxelmorph": experiments},
    }
    done = snakemake(tmp_path, "-n", "--cores", "2", "voxelmorph", config=config)
    assert done.returncode == 0, done.output
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.output, flags=re.MULTILINE))
    networks = 2 + 2 + 3 + 2 + 2 * (2 + 3 + 1 + 1)
    assert counts["train"] == str(networks)
    assert counts["evaluate"] == counts["register"] == str(networks - 3 + 2 + 6), "not λ, but classical and refined"
    assert (counts["experiment_table"], counts["experiment_figure"]) == ("4", "4")
    assert not {"write_report", "tables"} & set(counts)
