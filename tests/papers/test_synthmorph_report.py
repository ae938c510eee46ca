"""The experiments of SynthMorph: which networks they need, and numbers and artists from scores that are known."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.experiments import Needs
from regcore.experiments import synthmorph as paper
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.papers.write import show, write_experiment
from regcore.study.results import Results
from regcore.study.settings import StudySettings
from regcore.synthesis.mr_contrast import of_series

METHODS = ["affine", "syn", "sm-shapes", "vm-ncc", "vm-nmi"]
NETWORKS = METHODS[2:]
CONTRASTS = ["T1w to T1w", "FLASH-10 to FLASH-40", "FLASH-20 to FLASH-40", "MPRAGE-300 to T1w"]
SWEEPS = {"b_v": [0.5, 1, 3], "r_v": [8, 16]}


def settings(**changes):
    config = {"study": "x", "cohort": {"table": "x"}, "methods": {"syn": None}, "experiments": {"synthmorph": changes}}
    return StudySettings.read(config, "configuration").experiments.synthmorph


CHOSEN = settings(sweeps=SWEEPS, **{"lambda": [0, 1]}, settings={"steps": 7})


def planned(chosen, contrasts, labelled=True):
    """With one test pair for each contrast of the moving subject."""
    scans = pd.DataFrame({"contrast": ["T1w", *contrasts], "subject": ["a", *["b"] * len(contrasts)]})
    scans.index = ["fixed", *contrasts]
    pairs = pd.DataFrame({"fixed": "fixed", "moving": contrasts})
    return paper.experiments(chosen, METHODS, NETWORKS, pairs, scans, labelled)


PLANNED = planned(CHOSEN, ["FLASH-10", "FLASH-20", "T1w"])


# ---- what is planned


def test_every_value_of_a_sweep_has_a_network_of_each_kind():
    assert len(PLANNED.variants) == 2 * (3 + 2 + 2)
    assert PLANNED.variants["sm-brains-b_v-0.5"] == {"method": "synthmorph", "steps": 7, "maps": "cohort", "b_v": 0.5}
    assert PLANNED.variants["sm-shapes-r_v-16"]["r_v"] == [16], "one resolution, as in Section III-G"
    assert PLANNED.variants["sm-shapes-lambda-0"]["lambda"] == 0
    assert {*PLANNED["fig13"].needs.scores, *PLANNED["fig14"].needs.scores} == {*PLANNED.variants, "affine"}


def test_methods_are_compared_without_training_anything():
    plain = planned(settings(), ["T1w"], labelled=False)
    assert not plain.variants and plain.names == ["fig6", "fig7", "table3"]
    assert all(one.needs.scores == METHODS for one in plain.experiments)
    assert "fig11" in PLANNED.names and "fig12" not in plain.names, "where a contrast is one of a series"
    assert PLANNED["fig12"].needs.features == NETWORKS
    alone = planned(settings(), ["FLASH-10", "MPRAGE-300"], labelled=False)
    assert "fig11" in alone.names and "fig12" not in alone.names, "one contrast of a series does not vary"


def test_networks_from_label_maps_need_label_maps():
    with pytest.raises(InputError, match=r"experiments.synthmorph.kinds: 'cohort' needs labels"):
        planned(CHOSEN, ["T1w"], labelled=False)
    planned(settings(sweeps=SWEEPS, kinds=["shapes"]), ["T1w"], labelled=False)


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [
        ("FLASH-30", ("FLASH", 30)),
        ("MPRAGE-700", ("MPRAGE", 700)),
        ("T1w", None),
        ("other-3", None),
        ("FLASH-02", None),
    ],
)
def test_contrasts_of_a_series(contrast, expected):
    assert of_series(contrast) == expected


# ---- known scores


def pairs():
    rows = [
        {"pair": f"p{c}{n}", "split": "test", "fixed": f"f{c}{n}", "moving": f"m{c}{n}", "contrasts": name}
        for c, name in enumerate(CONTRASTS)
        for n in range(3)
    ]
    return pd.DataFrame(rows)


def write_scores(folder, name, dice, distance):
    """Two labels, a tenth apart; the n-th pair is a hundredth better than the one before."""
    rows = []
    for number, pair in enumerate(pairs()["pair"]):
        for label, offset in ((1, -0.05), (2, 0.05)):
            rows.append((name, pair, label, "dice", dice + offset + 0.01 * (number % 3)))
            rows.append((name, pair, label, "mean_surface_distance_mm", distance * (1 + 0.1 * (number % 3)) + offset))
        rows.append((name, pair, -1, "folds_percent", 0.5 * dice))
        rows.append((name, pair, -1, "sd_log_jacobian", 0.1))
        rows.append((name, pair, -1, "mean_jacobian", 1 + dice))
    (folder / "metrics").mkdir(exist_ok=True)
    table = pd.DataFrame(rows, columns=["method", "pair", "label", "metric", "value"])
    table.to_parquet(folder / "metrics" / f"{name}.parquet")


def write_images(folder):
    """Of every fixed scan a square, of every moving one a square two voxels further, and a field of every method.

    That of ``affine`` leaves the moving image where it is, the others bring it onto the fixed one.
    """
    grid = Grid.centred((16, 16), (2, 2), (0, 0))
    for side, start in (("f", 4), ("m", 6)):
        square = np.zeros((16, 16))
        square[start : start + 6, 4:10] = 100
        Volume(square, grid).save(folder / f"{side}_image.nii.gz")
        Volume((square > 0).astype(np.uint8), grid).save(folder / f"{side}_labels.nii.gz")
    for name in METHODS:
        displacement = torch.zeros(1, 2, 16, 16)
        displacement[:, 0] = 0 if name == "affine" else 2
        DisplacementField(displacement, grid).save(folder / f"field_{name}.nii.gz")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for place, name in enumerate(METHODS):
        write_scores(folder, name, 0.5 + 0.05 * place, 2 - 0.2 * place)
    for place, name in enumerate(PLANNED.variants):
        write_scores(folder, name, 0.6 + 0.01 * place, 1)
    (folder / "features").mkdir()
    for place, name in enumerate(NETWORKS):
        rows = [
            (name, s, layer, 64, layer * (1 + place), 0.1 * layer, 3, 2) for s in paper.SERIES for layer in (1, 2, 3)
        ]
        columns = ["method", "series", "layer", "features", "rmsd", "relative", "pairs", "contrasts"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "features" / f"{name}.csv", index=False)
    write_images(folder)
    table = pairs()
    moving = dict(zip(table["moving"], table["contrasts"].str.split(" ").str[0], strict=True))
    plan = SimpleNamespace(
        folder=folder,
        papers={"synthmorph": PLANNED},
        settings=SimpleNamespace(experiments=SimpleNamespace(synthmorph=CHOSEN), preprocess=PreprocessSettings()),
        methods=dict.fromkeys(METHODS),
        pairs_of=lambda split: table,
        field=lambda name, pair: folder / f"field_{name}.nii.gz",
        cohort=SimpleNamespace(
            table=pd.DataFrame({"contrast": moving}),
            existing=lambda scan, kind: folder / f"{scan[0]}_{kind}.nii.gz",
            files=lambda scan: {"image": folder / f"{scan[0]}_image.nii.gz"},
        ),
    )
    yield Results(plan)
    plt.close("all")


def test_a_pair_in_the_middle_of_each_contrast_is_shown(known):
    """Of three pairs, each a hundredth better than the one before, the second one."""
    table, figure = show(known, "synthmorph", "fig6")
    assert list(table["contrasts"].unique()) == CONTRASTS and len(table) == len(CONTRASTS) * len(METHODS)
    assert set(table["pair"]) == {f"p{c}1" for c in range(len(CONTRASTS))}
    fixed, affine, syn = (figure.axes[column].images[0].get_array() for column in range(3))
    assert np.allclose(syn, fixed) and not np.allclose(affine, fixed)
    assert figure.axes[1].get_title() == "affine  0.510" and figure.axes[0].get_ylabel() == CONTRASTS[0]
    outlines = figure.axes[1].images[1].get_array()
    assert outlines.sum() == 4 * 6 - 1, "where a voxel differs from its neighbour before it"


def test_a_failed_registration_is_left_out_of_the_pictures(known, tmp_path):
    """Of one contrast ``syn`` failed on every pair, of another on the middle one: there another pair is shown."""
    (tmp_path / "metrics").mkdir()
    for path in (known.files.folder / "metrics").iterdir():
        scores = pd.read_parquet(path)
        failed = scores["pair"].isin(["p00", "p01", "p02", "p11"]) & (scores["method"] == "syn")
        scores[~failed].to_parquet(tmp_path / "metrics" / path.name)
    table, figure = show(Results(SimpleNamespace(**{**vars(known.plan), "folder": tmp_path})), "synthmorph", "fig6")
    assert list(table[table["contrasts"] == CONTRASTS[0]]["method"]) == [name for name in METHODS if name != "syn"]
    shown = table[table["contrasts"] == CONTRASTS[1]]
    assert list(shown["method"]) == METHODS and set(shown["pair"]) == {"p12"}
    titles = [axis.get_title() for axis in figure.axes[: len(METHODS) + 1]]
    assert titles[-1] == "" and not any(title.startswith("syn") for title in titles)


def test_overlap_and_distance_by_contrast(known):
    table, figure = show(known, "synthmorph", "fig7")
    assert len(table) == len(METHODS) * len(CONTRASTS)
    row = table.set_index(["contrasts", "method"]).loc[("T1w to T1w", "syn")]
    assert row["dice_mean"] == pytest.approx(0.56) and row["dice_std"] == pytest.approx(0.01)
    assert row["mean_surface_distance_mm_mean"] == pytest.approx(1.8 * 1.1) and row["dice_count"] == 3
    upper, lower = figure.axes
    assert [text.get_text().replace("\n", " ") for text in lower.get_xticklabels()] == CONTRASTS
    medians = [line.get_ydata()[0] for line in upper.lines if len(set(line.get_ydata())) == 1]
    assert pytest.approx(0.56) in medians and len(upper.patches) == len(table)


def test_overlap_along_a_series(known):
    table, figure = show(known, "synthmorph", "fig11")
    assert set(table["series"]) == {"FLASH", "MPRAGE"} and set(table["number"]) == {10, 20, 300}
    flash, mprage = figure.axes
    assert flash.get_xlabel() == "flip angle (degrees) of the moving image"
    assert [len(line.get_xdata()) for line in flash.lines] == [2] * len(METHODS)
    np.testing.assert_allclose(flash.lines[2].get_ydata(), 0.61)
    assert [list(line.get_xdata()) for line in mprage.lines] == [[300]] * len(METHODS)


def test_features_by_layer(known):
    table, figure = show(known, "synthmorph", "fig12")
    assert len(table) == 3 * 2 * 3 and len(figure.axes) == 4
    flash = figure.axes[0]
    assert flash.get_title() == "FLASH"
    np.testing.assert_allclose(flash.lines[1].get_xydata(), [[1, 2], [2, 4], [3, 6]])
    np.testing.assert_allclose(figure.axes[3].lines[2].get_ydata(), [0.1, 0.2, 0.3])


def test_overlap_by_setting(known):
    table, figure = show(known, "synthmorph", "fig13")
    assert list(table["setting"].unique()) == ["b_v", "r_v"]
    row = table.set_index(["kind", "setting", "value"]).loc[("sm-shapes", "b_v", 3)]
    place = list(PLANNED.variants).index("sm-shapes-b_v-3")
    assert row["dice"] == pytest.approx(0.6 + 0.01 * place + 0.01)
    assert row["dice_se"] == pytest.approx(np.std([0, 0.01, 0.02] * 4, ddof=1) / np.sqrt(12))
    assert len(figure.axes) == 2 and figure.axes[1].get_xlabel() == "velocities at 1:$r_v$"


def test_overlap_and_folds_by_lambda(known):
    table, figure = show(known, "synthmorph", "fig14")
    assert list(table["value"]) == [0, 1, 0, 1] and len(figure.axes) == 4
    assert table["folds_percent"].iloc[0] == pytest.approx(
        0.5 * (0.6 + 0.01 * list(PLANNED.variants).index("sm-shapes-lambda-0"))
    )
    # What the affine alignment does to volumes, here 1 + its Dice, is not the network's.
    of_affine = (1 + known_dice(known, "affine")).to_numpy()
    of_network = (1 + known_dice(known, "sm-shapes-lambda-0")).to_numpy()
    assert table["mean_jacobian"].iloc[0] == pytest.approx((of_network / of_affine).mean())


def known_dice(known, name):
    """The Dice that scores were written from: their mean Jacobian less 1."""
    scores = known.scores(name)
    return scores[scores["metric"] == "mean_jacobian"]["value"] - 1


def test_the_change_of_surface_distance(known):
    table, html = show(known, "synthmorph", "table3")
    row = table.set_index("method").loc["sm-shapes"]
    assert row["reduction_percent"] == pytest.approx(20) and row["standard_error"] == pytest.approx(0, abs=1e-9)
    assert row["improved_percent"] == 100 and row["pairs"] == 12
    assert "affine" not in set(table["method"]) and "20.0 ± 0.0" in html


def test_a_study_without_a_start_has_nothing_to_compare_with(known):
    alone = replace(PLANNED, experiments=[replace(PLANNED["table3"], needs=Needs(scores=["syn"]))])
    plan = SimpleNamespace(**{**vars(known.plan), "papers": {"synthmorph": alone}})
    table, html = show(Results(plan), "synthmorph", "table3")
    assert table.empty and "Needs the method 'affine'" in html


@pytest.mark.slow
@pytest.mark.parametrize("experiment", PLANNED.names)
def test_an_experiment_is_written(known, tmp_path, experiment):
    kind = "html" if experiment.startswith("table") else "png"
    outputs = {"csv": tmp_path / f"{experiment}.csv", kind: tmp_path / f"{experiment}.{kind}"}
    write_experiment(known, "synthmorph", experiment, outputs)
    assert len(pd.read_csv(outputs["csv"])) and outputs[kind].stat().st_size > 300
