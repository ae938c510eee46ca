"""The pairs of ``benchmarks/portfolio.py``: made motions are what they say, and rows become a page."""

import subprocess
import sys
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from support.paths import ROOT

from regcore.errors import InputError
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume

sys.path.append(str(ROOT / "benchmarks"))  # it is no package

from anatomies.cohorts import boxed, first_scans, of_two, seen, within_view
from anatomies.contestants import Contestant, register
from anatomies.made import ANATOMIES, POISSON, beside_rigid_ball, make
from anatomies.pair import Pair
from anatomies.rows import ROWS, make_pair
from anatomies.score import score
from anatomies.summary import summarised, with_starts, write_summary
from anatomies.table import Table, read_tables

SIZE = 40


@lru_cache
def made(kind: str):
    generator = np.random.default_rng(0)
    anatomy = ANATOMIES[kind](generator)
    return anatomy, make(anatomy, kind, generator, SIZE)


def make_made(kind: str, seed: int, size: int = 12) -> Pair:
    generator = np.random.default_rng(seed)
    return make(ANATOMIES[kind](generator), kind, generator, size)


def truth(kind: str) -> DisplacementField:
    anatomy, pair = made(kind)
    grid = pair.fixed.grid
    return DisplacementField.from_world(anatomy.motion(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))), grid)


@pytest.mark.parametrize("kind", ANATOMIES)
def test_true_motion_brings_the_images_together(kind):
    _, pair = made(kind)
    inside = pair.fixed_labels.data > 0
    left = (truth(kind).warp(pair.moving).data - pair.fixed.data)[inside].std()
    assert left < 0.08 and left < 0.6 * (pair.moving.data - pair.fixed.data)[inside].std()
    warped = truth(kind).warp(pair.moving_labels, nearest=True).data
    assert (warped == pair.fixed_labels.data)[inside].mean() > 0.92
    exact = score(pair, truth(kind).displacement[0].numpy())
    still = score(pair, np.zeros((3, SIZE, SIZE, SIZE), np.float32))
    # Only across a sliding interface is the true field itself blurred between voxels.
    assert exact["error_mm"] < 0.2 * still["error_mm"] and exact["dice"] > still["dice"]


@pytest.mark.parametrize("kind", ANATOMIES)
def test_true_motion_is_invertible(kind):
    """The iteration x ← y - u(x) leads back to where y came from, and volumes keep their sign."""
    anatomy, pair = made(kind)
    found = pair.targets
    for _ in range(200):
        found = pair.targets - (anatomy.motion(found) - found)
    assert (np.linalg.norm(found - pair.points, axis=1) < 1e-3).mean() > 0.99
    step = 1e-4
    columns = [anatomy.motion(pair.points + step * e) - anatomy.motion(pair.points - step * e) for e in np.eye(3)]
    volumes = np.linalg.det(np.stack(columns, axis=-1) / (2 * step))
    assert np.quantile(volumes, 0.005) > 0.3


def test_one_number_gives_one_pair():
    first, second, other = (make_made("sliding", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.fixed.data, second.fixed.data)
    np.testing.assert_array_equal(first.targets, second.targets)
    assert np.abs(first.targets - other.targets).max() > 1


def test_tissue_slides_along_a_wall_that_stays():
    anatomy, pair = made("sliding")
    moved = pair.targets - pair.points
    far = np.linalg.norm(moved, axis=1)
    assert 5 < far.max() <= 9
    axis = moved[far.argmax()] / far.max()
    np.testing.assert_allclose(moved, (moved @ axis)[:, None] * axis, atol=1e-9)  # all in one direction
    _, there = anatomy.material(pair.targets)
    assert far[there >= 4].max() < 1e-9  # ribs and the rest of the wall
    # Neighbours on either side of the interface move differently: the field jumps.
    steps = np.linalg.norm(anatomy.motion(pair.points + 0.1) - pair.targets - 0.1, axis=1)
    assert 0 < (steps > 1).mean() < 0.05


def test_a_stiff_ball_keeps_its_shape():
    anatomy, pair = made("stiff")
    _, labels = anatomy.material(pair.targets)
    ball, around = labels == 1, labels > 1
    before, after = (np.linalg.norm(x[ball][:, None] - x[ball][None], axis=-1) for x in (pair.points, pair.targets))
    np.testing.assert_allclose(before, after, atol=1e-9)
    far = np.linalg.norm(pair.targets - pair.points, axis=1)
    assert far[around].mean() < 0.6 * far[ball].mean() and 4 < far[ball].mean() < 8


def test_medium_beside_the_ball_is_in_equilibrium():
    """Navier's equation, ∇(∇·u) / (1 - 2ν) + ∇²u = 0, and u = s on the ball."""
    radius, shift = 10.0, np.array([1.0, -2.0, 3.0])
    directions = np.random.default_rng(0).standard_normal((50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def displacement(x):
        return beside_rigid_ball(x, np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), radius), radius, shift)

    np.testing.assert_allclose(
        displacement(1.0000001 * radius * directions), np.broadcast_to(shift, (50, 3)), rtol=1e-5
    )
    x, h, axes = 1.5 * radius * directions, 0.05, np.eye(3)

    def second(i, j):
        signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
        return sum(a * b * displacement(x + h * (a * axes[i] + b * axes[j])) for a, b in signs) / (4 * h**2)

    laplacian = sum(second(i, i) for i in range(3))
    gradient = np.stack([sum(second(i, j)[:, j] for j in range(3)) for i in range(3)], axis=-1)
    terms = gradient / (1 - 2 * POISSON), laplacian
    assert np.abs(sum(terms)).max() < 0.01 * np.abs(terms[0]).max()


def test_a_chamber_contracts_and_its_wall_keeps_its_volume():
    _, pair = made("contraction")
    cavity, wall = (
        [inside(labels.data).sum() for labels in (pair.fixed_labels, pair.moving_labels)]
        for inside in (lambda data: data == 1, lambda data: data > 1)
    )
    assert 0.70**3 - 0.02 < cavity[0] / cavity[1] < 0.75**3 + 0.02
    assert abs(wall[0] / wall[1] - 1) < 0.04


def test_pairs_of_a_row_are_different_people(monkeypatch):
    monkeypatch.setattr("capture.sources.subjects", lambda cohort, split: ["a-1", "a-2", "b-1", "c-1"])
    assert first_scans("brains", "train") == ["a-1", "b-1", "c-1"]
    pairs = [of_two(["a", "b", "c"], number) for number in range(7)]
    assert pairs[6] is None and len(set(pairs[:6])) == 6
    assert all(first != second for first, second in pairs[:6])
    assert {first for first, _ in pairs[:3]} == {second for _, second in pairs[:3]} == {"a", "b", "c"}


def test_what_the_moving_scan_does_not_show_is_left_out():
    grid = Grid.centred((10, 8), (1, 1), (0, 0))
    ones = Volume(np.ones(grid.shape, np.float32), grid)
    labels = Volume(np.ones(grid.shape, np.int16), grid)
    pair = Pair("p", "f", "m", ones, ones, labels, labels)
    assert within_view(pair, seen(grid, grid, np.eye(3))).moving_mask is None
    shift = np.eye(3)
    shift[0, 2] = 4
    shown = seen(grid, grid, shift)
    assert shown[:6].all() and not shown[6:].any()
    cut = within_view(pair, shown)
    np.testing.assert_array_equal(cut.moving_mask.data, shown)
    np.testing.assert_array_equal(cut.fixed_labels.data, shown)
    assert score(cut, np.zeros((2, *grid.shape), np.float32))["dice"] == 1


def test_grid_around_the_content():
    grid = Grid.centred((10, 8, 6), (2, 2, 2), (1, 2, 3))
    found = boxed(grid, grid.to_world(np.array([[2.0, 2, 2], [5, 12.5, 3]])))
    assert found.shape == (12, 20, 10) and (found.spacing == 2).all()
    np.testing.assert_allclose(grid.to_voxels(found.to_world((0, 0, 0))), (-2, -2, -2))


def quick(**settings) -> Contestant:
    return Contestant("instance", {"shrink": [4], "iterations": [5], **settings})


def test_a_table_is_continued_and_refuses_other_settings(tmp_path):
    _, pair = made("stiff")
    start = score(pair, np.zeros((3, SIZE, SIZE, SIZE), np.float32))
    Table(tmp_path, "a b/c", quick()).add("stiff", pair, "train", 1, start, {"failed": "no"})
    again = Table(tmp_path, "a b/c", quick())
    assert again.has(pair.name, "train") and not again.has(pair.name, "test")
    assert read_tables(tmp_path, "test").empty and len(read_tables(tmp_path, "train")) == 1
    with pytest.raises(InputError, match="another --label"):
        Table(tmp_path, "a b/c", quick(step=0.25))


def test_masks_reach_the_methods_that_use_them(tmp_path, monkeypatch):
    _, pair = made("stiff")
    mask = pair.fixed.with_data((np.indices(pair.fixed.grid.shape)[0] > 3).astype(np.uint8))
    for name, volume in (("fixed", pair.fixed), ("moving", pair.moving), ("moving_mask", mask)):
        volume.save(tmp_path / f"{name}.nii")
    given = []
    from regcore.methods.classical.alignment import Affine

    real = Affine.register
    monkeypatch.setattr(Affine, "register", lambda *images, **masks: given.append(masks) or real(*images, **masks))
    found = register("affine", {}, str(tmp_path))
    assert found["seconds"] >= 0 and found["memory_mb"] > 0
    assert not np.load(tmp_path / "field.npy").any()
    assert [list(masks) for masks in given] == [[], ["moving_mask"]]  # the first call only loads


def rows_of(contestant: str, method: str, values: list[float], measure: str = "dice", **more) -> pd.DataFrame:
    row = "slices" if measure == "dice" else "stiff"
    facts = {"row": row, "contestant": contestant, "method": method, "settings": "{}", "threads": 1, "split": "train"}
    facts |= {"dice": 0.5, "hd95_mm": 2.0, "error_mm": np.nan, "dice_start": 0.4, "hd95_start_mm": 3.0}
    facts |= {"error_start_mm": np.nan, "folds_percent": 0.0, "sd_log_jacobian": 0.1, "seconds": 1.0}
    facts |= {"cpu_seconds": 1.0, "memory_mb": 1.0, "failed": None, **more}
    return pd.DataFrame([facts | {"pair": f"{row}-{n:03d}", measure: value} for n, value in enumerate(values)])


def test_contestants_are_compared_with_the_best_other_tool():
    rows = pd.concat(
        [
            rows_of("ours", "instance", [0.62, 0.65, 0.61, 0.66, 0.68, 0.64]),
            rows_of("greedy", "greedy", [0.60, 0.62, 0.60, 0.63, 0.66, 0.62]),
            rows_of("demons", "demons", [0.5] * 6),
            rows_of("syn", "syn", [0.9]),  # it has not all pairs yet
        ]
    )
    table = summarised(with_starts(rows)).set_index("contestant")
    assert set(table["best_tool"]) == {"greedy"}
    assert table.loc["ours", "better_by"] == pytest.approx(100 * np.mean([0.02, 0.03, 0.01, 0.03, 0.02, 0.02]))
    assert table.loc["ours", "p_wilcoxon"] < 0.05 and table.loc["ours", "better_low"] > 0
    lost = pd.concat([rows_of("ours", "instance", [0.5, 0.6]), rows_of("greedy", "greedy", [0.3, 0.3])])
    assert set(summarised(with_starts(lost))["best_tool"]) == {"the start"}
    assert table.loc["syn", "compared"] == 1 and np.isnan(table.loc["greedy", "better_by"])


def test_less_error_is_better_and_a_failure_counts_as_the_start():
    error = {"measure": "error_mm", "error_start_mm": 4.0}
    ours = rows_of("ours", "instance", [1.0, 2.0], **error)
    tool = rows_of("greedy", "greedy", [2.0, np.nan], **error).assign(failed=[None, "took too long"])
    table = summarised(with_starts(pd.concat([ours, tool]))).set_index("contestant")
    assert table.loc["ours", "better_by"] == pytest.approx(1.5)
    assert table.loc["greedy", "error_mm"] == 3 and table.loc["greedy", "failed"] == 1
    assert table.loc["ours", "error_left"] == pytest.approx(0.375)


def test_page_without_another_tool(tmp_path):
    rows = rows_of("ours", "instance", [0.6, 0.7])
    (tmp_path / "pairs").mkdir()
    rows.to_csv(tmp_path / "pairs" / "ours.csv", index=False)
    write_summary(tmp_path, "train", {"deeds": "is not here"})
    text = (tmp_path / "README.md").read_text()
    assert "deeds (is not here)" in text and "+25.00" in text and "the start" in text
    assert (tmp_path / "portfolio.png").stat().st_size > 1000


def test_rows_say_what_they_need():
    assert {row for row, found in ROWS.items() if not found.cohorts} == set(ANATOMIES)
    assert make_pair("prostate-us", 99, "train") is None


@pytest.mark.slow
def test_portfolio_runs_and_continues(tmp_path):
    method = 'instance {"shrink": [4], "iterations": [5]}'
    words = ["--pairs", "1", "--split", "train", "--rows", "stiff", "--contestants", "affine", "--method", method]
    command = [sys.executable, "benchmarks/portfolio.py", *words, "--label", "quick one", "--threads", "1"]
    output = ["--output", str(tmp_path)]
    done = subprocess.run([*command, *output], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = read_tables(tmp_path, "train").set_index("contestant")
    assert rows["failed"].isna().all() and rows.loc["quick one", "error_mm"] < rows.loc["affine", "error_mm"]
    assert rows.loc["affine", "dice"] == rows.loc["affine", "dice_start"]
    again = subprocess.run([*command, *output], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "stiff-000" not in again.stderr
    assert "quick one" in (tmp_path / "README.md").read_text()
