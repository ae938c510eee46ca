"""The figures and the table of HyperMorph: numbers and artists from sweeps whose Dice is a known parabola."""

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from support.models import write_model_json

from regcore.cohort.settings import LabelSettings
from regcore.experiments import hypermorph as paper
from regcore.methods.settings.training import TrainingSettings
from regcore.papers.hypermorph import landscapes, robustness
from regcore.papers.write import show, write_experiment
from regcore.study.results import Results
from regcore.study.settings import StudySettings
from regcore.tuning import optima

LABELS = pd.DataFrame({"index": [5, 30, 44], "name": ["Left-Caudate", "Right-Caudate", "Brain-Stem"]})
EXPERIMENTS = ("fig3", "fig4", "fig5", "fig6", "fig7", "table1")
OBSERVED = {5, 30}
RULE = {
    "schedule": "plateau",
    "drops": 1,
    "patience": 3,
    "tolerance": 0.01,
    "select": "loss",
    "validate_every": 200,
    "steps": 9000,
}


def settings(**changes):
    """The settings of the experiments, with every default."""
    config = {"study": "x", "cohort": {"table": "x"}, "methods": {"syn": None}, "experiments": {"hypermorph": changes}}
    return StudySettings.read(config, "configuration").experiments.hypermorph


CHOSEN = settings(
    settings=RULE,
    **{"lambda": {"lncc": [0, 0.5, 1], "mse": [0, 0.2, 0.4, 0.6, 1]}},
    replicates={"count": 3, "lambda": {"mse": [0.2, 0.615]}},
    landscapes={
        "window": {"lambda": [0.1, 0.5], "window": [3, 7, 15], "range": [3, 15]},
        "gamma": {"lambda": [0.1, 0.5], "gamma": [0, 0.5, 1], "observed": "half"},
    },
)


# ---- known scores


#: How far each moves the top of a parabola, and how much each random start adds.
DATASET, TASK, LABEL = {"a": -0.05, "b": 0.05}, {"within": -0.1, "across": 0.1}, {5: -0.2, 30: 0, 44: 0.2}
START = {1: 0, 2: 0.01, 3: 0.03}


class Parabolas:
    """Dice as a parabola of λ, whose top lies at 0.4 (0.5 with lncc) for all pairs and labels together."""

    def top(self, name, pair, label):
        middle = 0.5 if name == "lncc" else 0.4
        return middle + DATASET[pair.dataset] + TASK[pair.task] + LABEL[label]

    def __call__(self, shape, kind, replicate, pair, label, values):
        """The hypernetwork's Dice; a network's is lower by λ points on test pairs, its top is higher on others."""
        amount = values["lambda"]
        top = self.top(shape.name, pair, label) + (0.15 if (kind, pair.split) == ("grid", "validation") else 0)
        dice = 0.8 - 0.5 * (amount - top) ** 2 + 0.01 * (pair.Index % 3)
        dice += START[replicate] * (1 if kind == "hyper" else 2)
        if "window" in values:
            dice -= 0.2 * ((values["window"] - 3) / 12 - 0.5) ** 2
        if "gamma" in values:
            dice -= 0.2 * (values["gamma"] - (0.8 if label in OBSERVED else 0.2)) ** 2
        return dice - 0.01 * amount * ((kind, pair.split) == ("grid", "test"))


def pairs_of(count=2):
    """So many pairs of each task in each data set and split."""
    rows = itertools.product(("validation", "test"), ("a", "b"), ("within", "across"), range(count))
    return pd.DataFrame(
        [
            (f"f{n}--m{n}", split, f"f{n}", f"m{n}", "T1w to T1w", task, dataset)
            for n, (split, dataset, task, _) in enumerate(rows)
        ],
        columns=["pair", "split", "fixed", "moving", "contrasts", "task", "dataset"],
    )


def dense_points(shape):
    """As a hypernetwork's sweep has them, through single precision."""
    line = np.linspace(0, 1, {1: 101, 2: 21}[len(shape.prior)], dtype=np.float32).astype(float)
    rows = [[low + (high - low) * x for x in line] for low, high in shape.prior.values()]
    return [dict(zip(shape.prior, point, strict=True)) for point in itertools.product(*rows)]


def rows_of(shape, kind, name, replicate, points, pairs, dice, labels):
    rows = [
        (name, replicate, pair.split, *values.values(), pair.fixed, pair.moving, label, "dice", value)
        for values in points
        for pair in pairs.itertuples()
        for label in labels["index"]
        for value in [dice(shape, kind, replicate, pair, label, values)]
    ]
    columns = ["entry", "replicate", "split", *shape.prior, "fixed", "moving", "label", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns)
    overlap = table[table["label"] == labels["index"][0]].assign(label=-1, metric="overlap", value=0.1)
    return pd.concat([table, overlap], ignore_index=True)


def write_model(folder, shape, name, own):
    """A hypernetwork trains 30 s, and 10 s more from every further start; a network 20 s."""
    hyper = name.startswith("hyper")
    seconds = 20 + 10 * own["replicate"] if hyper else 20
    training = {
        "steps": 800 if hyper else 500,
        "stopped_early": name != "grid-lncc-lam~1.0",
        "seconds": seconds,
        "cpu_seconds": 0.5 * seconds,
        "device": "Some CPU",
        "threads": 1,
        "processes": 1,
        "observed": sorted(OBSERVED) if shape.name == "gamma" else [],
    }
    method, chosen = "hypermorph" if hyper else "voxelmorph", {**RULE, **shape.settings, **own}
    write_model_json(folder / "models" / name, method=method, settings=chosen, training=training)


def build(folder, chosen, dice, pairs, labels=LABELS):
    """A plan with the files that experiments read."""
    planned = paper.experiments(chosen, True)
    (folder / "sweeps").mkdir(parents=True)
    for shape in paper.landscapes(chosen, True).values():
        for kind, sweep, networks in (
            ("hyper", paper.dense(shape.name), shape.hypernetworks()),
            ("grid", paper.by_grid(shape.name), shape.networks()),
        ):
            frames = []
            for name, own in networks.items():
                write_model(folder, shape, name, own)
                points = dense_points(shape) if kind == "hyper" else [{key: own[key] for key in shape.prior}]
                frames.append(rows_of(shape, kind, name, own["replicate"], points, pairs, dice, labels))
            pd.concat(frames, ignore_index=True).to_parquet(folder / "sweeps" / f"{sweep}.parquet")
        tuned = pd.DataFrame({"entry": list(shape.hypernetworks())}).assign(pairs=8, seconds=1.5, overlap=0.7)
        for key, (low, high) in shape.prior.items():
            tuned[key] = [low + (0.425 + 0.1 * n) * (high - low) for n in range(len(tuned))]
        tuned.to_csv(folder / "sweeps" / f"{paper.dense(shape.name)}.csv", index=False)
    labels.to_csv(folder / "labels.tsv", sep="\t", index=False)
    return SimpleNamespace(
        folder=folder,
        papers={"hypermorph": planned},
        settings=SimpleNamespace(experiments=SimpleNamespace(hypermorph=chosen), labels=LabelSettings()),
        label_table=str(folder / "labels.tsv"),
        pairs=pairs,
    )


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    plan = build(tmp_path_factory.mktemp("study"), CHOSEN, Parabolas(), pairs_of())
    yield Results(plan)
    plt.close("all")


@pytest.fixture(autouse=True)
def few_resamplings(monkeypatch):
    monkeypatch.setattr(optima, "BOOTSTRAPS", 200)


def mean_dice(kind, values, name="mse", replicate=1, split="test", labels=LABELS["index"], **groups):
    """Of the pairs of some groups, and of some labels."""
    pairs = pairs_of()
    chosen = pairs[np.logical_and.reduce([pairs["split"] == split, *(pairs[k] == v for k, v in groups.items())])]
    shape = SimpleNamespace(name=name)
    dice = Parabolas()
    found = [dice(shape, kind, replicate, p, label, values) for p in chosen.itertuples() for label in labels]
    return np.mean(found)


def marked(axis, marker):
    return [line.get_xydata()[0] for line in axis.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]


# ---- the experiments


def test_dice_against_lambda(known):
    table, figure = show(known, "hypermorph", "fig3")
    assert list(table["similarity"]) == ["mse"] * 6 + ["lncc"] * 3, "in the paper's order"
    mse = table[table["similarity"] == "mse"]
    assert list(mse["lambda"]) == [0, 0.2, 0.4, 0.6, 0.615, 1]
    for row in mse.to_dict("records"):
        at = {"lambda": row["lambda"]}
        assert row["dice_grid"] == pytest.approx(mean_dice("grid", at))
        between = 0.5 * 0.005**2 if row["lambda"] == 0.615 else 0
        assert row["dice_hyper"] == pytest.approx(mean_dice("hyper", at) - between, abs=1e-7)
        assert row["gap"] == pytest.approx(row["lambda"] - 100 * between, abs=1e-5)
    first = mse.iloc[0]
    assert first["max_gap"] == pytest.approx(1)
    assert (first["lambda_tuned"], first["lambda_sweep"], first["lambda_grid"]) == (0.425, 0.4, 0.6)
    assert first["lambda_difference"] == pytest.approx(0.175)
    gap = mean_dice("hyper", {"lambda": 0.425}) - mean_dice("grid", {"lambda": 0.6})
    assert first["optimum_gap"] == pytest.approx(100 * gap, abs=5e-3)
    assert (first["tuning_seconds"], first["tuning_pairs"], first["test_pairs"]) == (1.5, 8, 8)
    axis, other = figure.axes
    assert (axis.get_title(), other.get_title()) == ("MSE: λ* = 0.42 (grid: 0.6)", "NCC: λ* = 0.42 (grid: 0.5)")
    curve, networks = axis.lines[:2]
    np.testing.assert_allclose(curve.get_ydata(), [mean_dice("hyper", {"lambda": x}) for x in curve.get_xdata()])
    np.testing.assert_allclose(networks.get_xydata(), mse[["lambda", "dice_grid"]])
    np.testing.assert_allclose(marked(axis, "*"), [[0.425, mean_dice("hyper", {"lambda": 0.425})]], atol=1e-4)
    np.testing.assert_allclose(marked(axis, "o"), [[0.6, mean_dice("grid", {"lambda": 0.6})]])


def test_the_gap_of_a_network_beyond_the_hypernetworks_range_is_unknown(known):
    shape = landscapes.planned(known)["window"]
    grid = known.sweep("window-grid").replace({"window": {15: 17}})
    table = landscapes.compared(shape, known.sweep("window-hyper"), grid, landscapes.tuned(known, shape))
    assert list(table["dice_hyper"].isna()) == list(table["gap"].isna()) == list(table["window"] == 17)
    assert table["max_gap"].notna().all()


@pytest.mark.slow
def test_dice_over_two_hyperparameters(known):
    table, figure = show(known, "hypermorph", "fig4")
    panels = list(table.groupby(["landscape", "labels"], sort=False))
    names = [("window", "all"), ("gamma", "all"), ("gamma", "observed"), ("gamma", "held-out")]
    assert [name for name, _ in panels] == names
    codes = {"all": LABELS["index"], "observed": [5, 30], "held-out": [44]}
    axes = [axis for axis in figure.axes if axis.get_xlabel() == "λ"]
    for axis, ((second, labels), part) in zip(axes, panels, strict=True):
        assert len(part) == 6
        for row in part.to_dict("records"):
            at = {name: row[name] for name in ("lambda", second)}
            kinds = {"name": second, "labels": codes[labels]}
            between = 0.2 * (1 / 3 - 0.3) * (0.35 - 1 / 3) if row.get("window") == 7 else 0
            assert row["dice_grid"] == pytest.approx(mean_dice("grid", at, **kinds))
            assert row["dice_hyper"] == pytest.approx(mean_dice("hyper", at, **kinds) - between, abs=1e-6)
        assert part["max_gap"].nunique() == 1 and part["max_gap"].iloc[0] == pytest.approx(0.5, abs=0.012)
        dots = axis.collections[-1]
        np.testing.assert_allclose(dots.get_offsets(), part[["lambda", second]])
        np.testing.assert_allclose(dots.get_array(), part["dice_grid"])
        assert dots.norm is axis.collections[0].norm, "dots and landscape have one scale"
        np.testing.assert_allclose(marked(axis, "*"), part[["lambda_tuned", f"{second}_tuned"]][:1])
        np.testing.assert_allclose(marked(axis, "o"), part[["lambda_grid", f"{second}_grid"]][:1])
    best = table.drop_duplicates(["landscape", "labels"]).set_index(["landscape", "labels"])
    assert list(best["gamma_sweep"].dropna()) == [0.6, 0.8, 0.2], "the mean of 0.8, 0.8 and 0.2; seen; not seen"
    assert best.loc["window", "window_sweep"].item() == 9 and best.loc["window", "window_tuned"].item() == 8.1
    assert list(best["lambda_sweep"]) == [0.4, 0.4, 0.3, 0.6]
    assert list(best["gamma_grid"].dropna()) == [0.5, 1, 0]


def test_a_training_that_sees_every_label_has_one_panel(known, monkeypatch):
    monkeypatch.setattr(Results, "training", lambda results, name: {"observed": [5, 30, 44]})
    table, _ = show(known, "hypermorph", "fig4")
    assert set(table["labels"]) == {"all"}


def test_spread_over_starts(known):
    table, figure = show(known, "hypermorph", "fig5")
    assert set(table["similarity"]) == {"mse"} and set(table["replicates"]) == {3}
    assert len(table) == 101 + 1, "one of the networks lies between two points of the sweep"
    starts = [100 * START[n] for n in (1, 2, 3)]
    np.testing.assert_allclose(table["hyper_sd"], np.std(starts, ddof=1))
    np.testing.assert_allclose(table["gap"], table["hyper_mean"] - table["grid_mean"])
    assert table["max_gap"].unique() == pytest.approx([table["gap"].abs().max()])
    at = table.set_index("lambda")
    assert at.loc[0.3, "hyper_mean"] == pytest.approx(100 * mean_dice("hyper", {"lambda": 0.3}) + np.mean(starts))
    assert set(table["lambda_hyper"]) == {0.4}, "the top of the parabolas, on the validation pairs"
    assert set(table["lambda_grid"]) == {0.615}, "their top lies at 0.55; 0.2 is farther"
    several = table.dropna(subset="grid_sd")
    assert list(several["lambda"]) == [0.2, 0.615] and len(table.dropna(subset="grid_mean")) == 2
    np.testing.assert_allclose(several["grid_sd"], 2 * np.std(starts, ddof=1))
    expected = [100 * mean_dice("grid", {"lambda": x}) + 2 * np.mean(starts) for x in (0.2, 0.615)]
    np.testing.assert_allclose(several["grid_mean"], expected)
    axis, below = figure.axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), table[["lambda", "hyper_mean"]])
    band = axis.collections[0].get_paths()[0].get_extents()
    assert band.y1 == pytest.approx((table["hyper_mean"] + table["hyper_sd"]).max())
    bars = axis.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([np.ptp(bar[:, 1]) for bar in bars], 2 * several["grid_sd"])
    np.testing.assert_allclose(below.lines[0].get_xydata(), table[["lambda", "hyper_sd"]])
    np.testing.assert_allclose(below.lines[1].get_xydata(), several[["lambda", "grid_sd"]])


def test_lambda_of_groups_of_pairs(known):
    table, figure = show(known, "hypermorph", "fig6")
    mse = table[table["similarity"] == "mse"].set_index(["group_kind", "group"])
    tops = {("dataset", "a"): 0.35, ("dataset", "b"): 0.45, ("task", "across"): 0.5, ("task", "within"): 0.3}
    assert mse["lambda_star"].to_dict() == pytest.approx({**tops, ("all", "all"): 0.4}), "contrasts are all the same"
    for (kind, name), row in mse.drop(index=("all", "all")).iterrows():
        assert row["low"] <= row["lambda_star"] <= row["high"] and (row["pairs"], row["test_pairs"]) == (4, 4)
        for column, x in (("dice_test_at_star", tops[kind, name]), ("dice_test_at_common", 0.4)):
            assert row[column] == pytest.approx(mean_dice("hyper", {"lambda": x}, **{kind: name}), abs=1e-6)
        assert row["loss"] == pytest.approx(100 * 0.5 * (tops[kind, name] - 0.4) ** 2, abs=1e-4)
    assert mse.loc[("all", "all"), "loss"] == 0 and mse.loc[("all", "all"), "pairs"] == 8
    assert [axis.get_title() for axis in figure.axes] == [
        f"{similarity}, by {kind}" for similarity in ("MSE", "NCC") for kind in ("data set", "task")
    ]
    stars = np.array(marked(figure.axes[1], "*"))
    np.testing.assert_allclose(stars, mse.loc["task", ["lambda_star", "dice_test_at_star"]])


def test_a_group_chooses_on_validation_pairs_alone(known, monkeypatch):
    """Where the test pairs are best elsewhere."""
    stored = Results.sweep

    def moved(results, name):
        rows = stored(results, name)
        tested = (rows["split"] == "test") & (rows["metric"] == "dice")
        return rows.assign(value=rows["value"].where(~tested, -((rows["lambda"] - 0.9) ** 2)))

    monkeypatch.setattr(Results, "sweep", moved)
    table, _ = show(known, "hypermorph", "fig6")
    row = table.set_index(["similarity", "group"]).loc[("mse", "within")]
    assert row["lambda_star"] == pytest.approx(0.3)
    assert row["dice_test_at_star"] == pytest.approx(-0.36) and row["loss"] == pytest.approx(-11)


def test_pairs_that_are_all_of_one_kind_have_one_curve(known, monkeypatch):
    plan = SimpleNamespace(**{**vars(known.plan), "pairs": known.plan.pairs.assign(task="across", dataset="")})
    table, figure = show(Results(plan), "hypermorph", "fig6")
    assert list(table["group_kind"]) == ["all", "all"]
    assert [axis.get_title().split(", ", 1)[1] for axis in figure.axes] == ["all pairs (one data set, one task)"] * 2
    assert len(marked(figure.axes[0], "*")) == 1


@pytest.mark.slow
def test_lambda_of_structures(known):
    table, figure = show(known, "hypermorph", "fig7")
    mse = table[table["similarity"] == "mse"]
    assert list(mse["structure"]) == ["Caudate", "Brain-Stem"], "the smallest λ* first"
    assert list(mse["lambda_star"]) == pytest.approx([0.3, 0.6])
    assert (mse["low"] < mse["lambda_star"]).all() and (mse["lambda_star"] < mse["high"]).all()
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["Caudate", "Brain-Stem"]
    (diamonds,) = [line for line in axis.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(diamonds.get_xdata(), mse["lambda_star"])
    lines = [line.get_xdata() for line in axis.lines]
    whiskers = [[lines[5 * box + end][1] for end in (0, 1)] for box in (0, 1)]
    np.testing.assert_allclose(whiskers, mse[["low", "high"]], atol=0.0101)  # one step of the sweep


def test_a_label_that_few_pairs_have_is_judged_by_these(known, monkeypatch):
    stored = Results.sweep

    def rare(results, name):
        rows = stored(results, name)
        first = rows["fixed"] == rows.loc[rows["split"] == "validation", "fixed"].iloc[0]
        return rows.assign(value=rows["value"].where((rows["label"] != 44) | first))

    monkeypatch.setattr(Results, "sweep", rare)
    table, _ = show(known, "hypermorph", "fig7")
    row = table.set_index(["similarity", "structure"]).loc[("mse", "Brain-Stem")]
    assert row["pairs"] == 1
    np.testing.assert_allclose(row[["lambda_star", "low", "high"]].astype(float), 0.4 - 0.05 - 0.1 + 0.2, atol=1e-6)


def test_robustness_and_cost(known):
    table, html = show(known, "hypermorph", "table1")
    rows = table.set_index("landscape")
    assert list(rows.index) == ["mse", "lncc", "window", "gamma"], "in the paper's order"
    sd = np.std([100 * x for x in START.values()], ddof=1)
    mse = rows.loc["mse"]
    assert (mse["lambdas"], mse["hyper_sd"], mse["grid_sd"], mse["sd_ratio"]) == pytest.approx((2, sd, 2 * sd, 2))
    assert rows.drop(index="mse")["hyper_sd"].isna().all()
    assert rows["points"].to_dict() == {"mse": 6, "lncc": 3, "window": 6, "gamma": 6}
    assert (mse["grid_seconds"], mse["hyper_seconds"], mse["seconds_ratio"]) == (120, 30, 4)
    assert (mse["hyper_seconds_mean"], mse["hyper_seconds_sd"]) == (40, 10)
    assert (mse["grid_cpu_seconds"], mse["hyper_cpu_seconds"], mse["cpu_seconds_ratio"]) == (60, 15, 4)
    assert (mse["grid_steps"], mse["hyper_steps"], mse["device"]) == (3000, 800, "Some CPU (1 thread)")
    assert np.isnan(rows.loc["gamma", "hyper_seconds_sd"])
    assert html.startswith("<table") and html.count("<table") == 2 and "nan" not in html.lower()
    for text in ("MSE: λ, γ", "<td>40 (10)</td>", "<td>4.00</td>", f"<td>{2 * sd:.3f}</td>", "CPU s"):
        assert text in html
    words = html[html.index("<p") :]
    assert "when none of 3 successive values of the loss of the validation pairs, one every 200 steps" in words
    assert "1 % better" in words and "multiplied by 0.2" in words and "happened once" in words
    assert "1 of 27 trainings reached their maximum of steps" in words


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant", "patience": None}, "training takes 9000 steps"),
        (
            {"schedule": "constant", "tolerance": 0, "select": "dice"},
            "training ends when none of 3 successive values of the Dice",
        ),
        ({"drops": 2}, "after this has happened 2 times, training ends the next time"),
    ],
)
def test_the_rule_by_which_training_ends(changes, expected):
    assert expected in robustness.convergence_rule(TrainingSettings.read(RULE | changes, "x"))


def test_the_two_kinds_may_end_by_different_rules(known, monkeypatch):
    stored = Results.model

    def fixed_steps(results, name):
        steps = 9000 if name.startswith("hyper") else 6000
        return stored(results, name) | {"settings": RULE | {"schedule": "constant", "patience": None, "steps": steps}}

    monkeypatch.setattr(Results, "model", fixed_steps)
    _, html = show(known, "hypermorph", "table1")
    assert "; networks: training takes 6000 steps; hypernetworks: training takes 9000 steps. The grid" in html


def test_costs_without_cpu_seconds(known, monkeypatch):
    stored = Results.model

    def model(results, name):
        found = stored(results, name)
        del found["training"]["cpu_seconds"]
        return found

    monkeypatch.setattr(Results, "model", model)
    table, html = show(known, "hypermorph", "table1")
    assert table["grid_cpu_seconds"].isna().all() and "CPU s" not in html and "nan" not in html.lower()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_written_as_numbers_and_as_a_table_or_figure(known, tmp_path, experiment):
    kind = "html" if experiment.startswith("table") else "png"
    outputs = {"csv": tmp_path / f"{experiment}.csv", kind: tmp_path / f"{experiment}.{kind}"}
    write_experiment(known, "hypermorph", experiment, outputs)
    assert len(pd.read_csv(outputs["csv"]).dropna(axis="columns", how="all"))
    assert outputs[kind].read_bytes().startswith(b"\x89PNG" if kind == "png" else b"<table")


def test_every_planned_experiment_can_be_shown(known):
    planned = known.plan.papers["hypermorph"]
    assert planned.names == sorted(EXPERIMENTS)
