"""The pairs of ``benchmarks/alignment.py``: their true map is true, and they are what their kind says."""

import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from support.paths import ROOT

from regcore.evaluation import dice
from regcore.images.grid import Grid, transform_points
from regcore.images.volume import Volume

sys.path.append(str(ROOT / "benchmarks"))  # it is no package

from capture import contestants
from capture.bases import Base, recipes
from capture.kinds import KINDS, Kind
from capture.motion import angle, draw_motion, rotation
from capture.pairs import disturbed
from capture.pictures import draw_pairs
from capture.resampling import resampled
from capture.rows import Rows, read_rows
from capture.score import score
from capture.sources import Stored
from capture.summary import wilson, write_summary
from capture.truth import fit_to_labels

VOXEL = 3.0
NAME = "made:one:T1w"


@lru_cache
def made_scan(voxel: float = VOXEL):
    """An ellipsoid of 120×150×115 mm in two halves, with a ball in it, all textured; no symmetry is left."""
    draws = np.random.default_rng(0)
    shape = tuple(round(length / voxel) for length in (156, 192, 150))
    grid = Grid.centred(shape, [voxel] * 3, (5, -10, 20))
    x, y, z = np.moveaxis(grid.to_world(np.moveaxis(np.indices(shape), 0, -1)) - grid.centre, -1, 0)
    labels = np.where((x / 60) ** 2 + (y / 75) ** 2 + (z / 57) ** 2 < 1, 1, 0)
    labels[(labels > 0) & (y > 15)] = 2
    labels[(x - 15) ** 2 + (y + 30) ** 2 + (z - 10) ** 2 < 22**2] = 3
    texture = gaussian_filter(draws.standard_normal(shape), 2.0)
    values = np.array([0, 0.5, 0.7, 1.0])[labels] + 0.15 * (labels > 0) * texture / texture.std()
    image = gaussian_filter(100 * np.clip(values, 0, None), 0.6).astype(np.float32)
    return Stored(Volume(image, grid), Volume(labels.astype(np.int32), grid), voxel).scan(NAME)


def made_pair(kind: str, seed: int = 0, voxel: float = VOXEL):
    scan, base = made_scan(voxel), Base(NAME, NAME, same=True)
    return disturbed(scan, scan, np.eye(4), kind, np.random.default_rng(seed), f"{kind}-within-{seed:03d}", base)


@pytest.mark.parametrize("kind", KINDS)
def test_true_map_brings_the_labels_together(kind):
    pair = made_pair(kind)
    between = resampled(pair.moving_labels, pair.fixed.grid, pair.truth, nearest=True).data
    shown = [np.where(pair.covered, labels, 0) for labels in (pair.fixed_labels.data, between)]
    # Labels differ by the rounding of their borders, which is most of a label that is cut to a sliver.
    found = dice(*shown, [code for code in (1, 2, 3) if (shown[0] == code).sum() > 1000])
    assert found.min() > 0.95


@pytest.mark.parametrize(
    "kind", ["identity", "rotation", "translation", "scale", "thick", "air", "fov60", "hemisphere"]
)
def test_true_map_brings_the_images_together(kind):
    pair = made_pair(kind)
    inside = pair.covered & (pair.fixed_labels.data > 0)
    warped = resampled(pair.moving, pair.fixed.grid, pair.truth).data
    assert np.corrcoef(pair.fixed.data[inside], warped[inside])[0, 1] > (0.7 if kind == "thick" else 0.9)


@pytest.mark.parametrize("kind", ["identity", "fov60", "thick"])
def test_moving_image_has_a_grid_of_its_own(kind):
    pair = made_pair(kind, 1)
    turned = (pair.fixed.grid.inverse @ pair.moving.grid.affine)[:3, :3]
    straight = np.abs(turned / np.linalg.norm(turned, axis=0))
    assert np.abs(straight - np.round(straight)).max() > 0.01  # oblique
    assert np.abs(pair.moving.grid.spacing - VOXEL).min() > 0.01 * VOXEL


def test_one_seed_gives_one_pair():
    first, second, other = made_pair("noise", 1), made_pair("noise", 1), made_pair("noise", 2)
    np.testing.assert_array_equal(first.moving.data, second.moving.data)
    np.testing.assert_array_equal(first.truth, second.truth)
    assert np.abs(first.truth - other.truth).max() > 1


def test_headers_of_identity_are_right():
    np.testing.assert_allclose(made_pair("identity").truth, np.eye(4), atol=1e-12)
    assert 0 < made_pair("tiny").degrees <= 2


def test_right_headers_between_two_subjects():
    """The moving scan is brought to the fixed one by the map between them."""
    scan, generator = made_scan(), np.random.default_rng(0)
    between = draw_motion(KINDS["scale"], scan.content.mean(0), generator)
    moving = replace(
        scan,
        **{name: of_world(getattr(scan, name), between) for name in ("image", "smooth", "labels")},
        content=transform_points(between, scan.content),
    )
    pair = disturbed(scan, moving, between, "identity", generator, "identity-within-000", Base(NAME, NAME, True))
    np.testing.assert_allclose(pair.truth, np.eye(4), atol=1e-9)
    assert score(pair, np.eye(4))["dice"] > 0.95


def of_world(volume: Volume, matrix: np.ndarray) -> Volume:
    return Volume(volume.data, Grid(volume.data.shape, matrix @ volume.grid.affine))


def test_rotations_are_uniform():
    """Uniform rotations have the mean angle 90° + 360°/π² = 126.5°, and no preferred axis."""
    generator = np.random.default_rng(0)
    drawn = np.stack([rotation(3, 180, generator) for _ in range(3000)])
    angles = np.rad2deg(Rotation.from_matrix(drawn).magnitude())
    assert abs(angles.mean() - 126.5) < 2
    assert np.abs(drawn.mean(0)).max() < 0.05
    small = [rotation(3, 15, generator) for _ in range(200)]
    assert np.rad2deg(Rotation.from_matrix(small).magnitude()).max() <= 15


@pytest.mark.parametrize("ndim", [2, 3])
def test_angle_is_that_of_the_rotation(ndim):
    generator = np.random.default_rng(3)
    matrix = np.eye(ndim + 1)
    turn = np.deg2rad(40)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:ndim, :ndim] = matrix[:ndim, :ndim] * generator.uniform(1.1, 1.1, ndim)
    assert abs(angle(matrix) - 40) < 1e-6


def test_shifts_and_scales_are_as_large_as_said():
    generator = np.random.default_rng(0)
    centre = np.array([10.0, 20, 30])
    motions = [draw_motion(KINDS["translation"], centre, generator) for _ in range(200)]
    shifts = np.abs([transform_points(m, centre) - centre for m in motions])
    assert 140 < shifts.max() <= 150
    scales = [np.linalg.norm(draw_motion(KINDS["scale"], centre, generator)[:3, :3], axis=0) for _ in range(200)]
    assert 0.8 <= np.min(scales) < 0.82 and 1.23 < np.max(scales) <= 1.25


@pytest.mark.parametrize(("kind", "millimetres"), [("slab20", 20), ("slab40", 40)])
def test_slabs_are_as_thick_as_said(kind, millimetres):
    grid = made_pair(kind).moving.grid
    assert abs((grid.spacing * grid.shape).min() - millimetres) < grid.spacing.max()


@pytest.mark.parametrize(("kind", "part"), [("fov60", 0.6), ("fov30", 0.3)])
def test_part_of_the_field_of_view(kind, part):
    pair = made_pair(kind)
    lengths = np.sort(pair.moving.grid.spacing * pair.moving.grid.shape)
    whole = np.sort(made_pair("moderate").moving.grid.spacing * made_pair("moderate").moving.grid.shape)
    assert 0.5 * part < pair.seen.mean() < 1.6 * part
    assert np.prod(lengths) < 1.3 * part * np.prod(whole)


def test_hemisphere_is_half():
    pair = made_pair("hemisphere")
    assert 0.4 < pair.seen.mean() < 0.6
    sides = pair.points[pair.seen, 0], pair.points[~pair.seen, 0]
    assert max(sides[0].min(), sides[1].min()) > min(sides[0].max(), sides[1].max()) - 2  # no side on the other


def test_thick_voxels():
    assert sorted(made_pair("thick").moving.grid.spacing.round(6)) == [1, 1, 5]


def test_intensities_are_as_said():
    pairs = {kind: made_pair(kind) for kind in ("moderate", "inverted", "air", "noise", "bias")}
    inside = pairs["inverted"].covered & (pairs["inverted"].fixed_labels.data > 0)
    turned = resampled(pairs["inverted"].moving, pairs["inverted"].fixed.grid, pairs["inverted"].truth).data
    assert np.corrcoef(pairs["inverted"].fixed.data[inside], turned[inside])[0, 1] < -0.5
    assert pairs["moderate"].moving.data.min() == 0
    assert pairs["air"].moving.data.min() < -50
    # Noise is where there is nothing, too; the bias field changes the intensity of one label from place to place.
    assert (pairs["noise"].moving.data == 0).mean() < 0.01 < 0.2 < (pairs["moderate"].moving.data == 0).mean()
    spread = {kind: variation(pairs[kind]) for kind in ("moderate", "bias")}
    assert spread["bias"] > 1.5 * spread["moderate"]


def variation(pair) -> float:
    values = gaussian_filter(pair.moving.data, 1)[pair.moving_labels.data == 1]
    return float(values.std() / values.mean())


def test_map_between_many_labels_is_found_by_centroids():
    generator = np.random.default_rng(0)
    grid = Grid.centred((40, 40, 40), [2.0] * 3, (0, 0, 0))
    blocks = np.zeros(grid.shape, np.int16)
    for code, place in enumerate(np.ndindex(3, 3, 3), start=1):
        blocks[tuple(slice(6 + 10 * p, 6 + 10 * p + 4 + (code % 3)) for p in place)] = code
    matrix = draw_motion(KINDS["scale"], np.zeros(3), generator)
    fixed = Volume(blocks, grid)
    np.testing.assert_allclose(fit_to_labels(fixed, of_world(fixed, matrix)), matrix, atol=1e-6)


@pytest.mark.slow
def test_map_between_few_labels_is_found_by_overlap():
    scan = made_scan(voxel=6)
    kind = Kind("", degrees=10, shift_mm=20, scales=(0.9, 1.1))
    matrix = draw_motion(kind, scan.content.mean(0), np.random.default_rng(1))
    found = fit_to_labels(scan.labels, of_world(scan.labels, matrix))
    away = transform_points(found, scan.content) - transform_points(matrix, scan.content)
    assert np.linalg.norm(away, axis=1).mean() < 0.5 * VOXEL


def test_score_tells_success_and_harm():
    pair = made_pair("identity")
    right, wrong = (
        score(pair, np.eye(4)),
        score(pair, draw_motion(KINDS["translation"], np.zeros(3), np.random.default_rng(0))),
    )
    assert right["success"] and not right["worse"] and right["error"] < 1e-9
    assert not wrong["success"] and wrong["worse"] and wrong["error"] > 0.05
    off = np.eye(4)
    off[0, 3] = 0.04 * pair.extent
    assert score(pair, off)["success"]
    off[0, 3] = 0.06 * pair.extent
    assert not score(pair, off)["success"]


def test_between_subjects_success_is_dice():
    pair = replace(made_pair("identity"), known=False)
    off = np.eye(4)
    off[0, 3] = 0.04 * pair.extent  # near enough for a known map
    assert score(pair, np.eye(4))["success"] and not score(pair, off)["success"]


def test_rows_can_be_continued(tmp_path):
    pair = made_pair("identity")
    rows = Rows(tmp_path, "ANTs multi-start")
    assert not rows.has(pair.name, "test")
    found = {"matrix": np.eye(4).tolist(), "seconds": 1.5, "cpu_seconds": 1.0, "verdict": None}
    rows.add(pair, "test", found, score(pair, np.eye(4)))
    again = Rows(tmp_path, "ANTs multi-start")
    assert again.has(pair.name, "test") and not again.has(pair.name, "train")
    again.add(pair, "train", {"failed": "took longer than 1 s and was stopped"}, {"success": False, "worse": False})
    assert len(read_rows(tmp_path, "test")) == len(read_rows(tmp_path, "train")) == 1
    assert pd.isna(read_rows(tmp_path, "train")["error"].iloc[0])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_page_and_pictures(count, tmp_path, monkeypatch):
    """Also where a contestant found nothing, and where there are fewer pairs than a page holds."""
    pair = made_pair("identity")
    monkeypatch.setattr("capture.pictures.make_pair", lambda *_: pair)
    monkeypatch.setattr("capture.pictures.PAIRS", 2)
    rows, failing = Rows(tmp_path, "ANTs"), Rows(tmp_path, "elastix")
    found = {"matrix": np.eye(4).tolist(), "seconds": 1.5, "cpu_seconds": 1.0, "verdict": "ok"}
    for number in range(count):
        numbered = replace(pair, name=f"identity-within-{number:03d}")
        rows.add(numbered, "test", found, score(pair, np.eye(4)))
        failing.add(numbered, "test", {"failed": "no"}, {"success": False, "worse": False})
    for table in (rows, failing):
        draw_pairs(table.contestant, table.table, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["pictures-ants.png"]
    write_summary(tmp_path, "test")
    table = pd.read_csv(tmp_path / "summary.csv").set_index(["kind", "contestant"])
    assert table.loc[("identity", "ANTs"), "success"] == 1 and table.loc[("identity", "elastix"), "no_result"] == count
    page = (tmp_path / "README.md").read_text()
    assert f"100 ({100 * wilson(count, count)[0]:.0f}–100; {count})" in page and "headers already right" in page


def test_wilson_interval():
    """Values of Wilson's interval for 10 of 10 and 5 of 10 (Newcombe, Stat. Med. 17:857, 1998)."""
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)


def test_kinds_for_brains_take_only_brains(monkeypatch):
    monkeypatch.setattr("capture.bases.has", lambda cohort: True)
    assert {name for r in recipes(KINDS["slab20"], "within") for name in r[:2]}.isdisjoint(
        {"hippocampus", "brain-slices"}
    )
    assert {r[0] for r in recipes(KINDS["rotation"], "within")} > {"hippocampus", "brain-slices"}
    assert not recipes(KINDS["inverted"], "within") and recipes(KINDS["inverted"], "across")


def test_angles_of_elastix():
    """ITK's Euler angles are rotations about z, x and y, in this order of factors."""
    x, y, z = 0.3, -0.5, 1.1
    expected = Rotation.from_euler("ZXY", [z, x, y]).as_matrix()
    np.testing.assert_allclose(contestants._euler(np.array([x, y, z]), 3), expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ANTs", "regcore NMI", "greedy moments", "greedy search", "elastix", "reg_aladin"])
def test_contestants_find_an_easy_map(name, tmp_path):
    """Their matrices are read in the right direction and coordinates."""
    if reason := contestants.missing(name):
        pytest.skip(reason)
    pair = made_pair("moderate", 2, voxel=5 if name == "reg_aladin" else VOXEL)  # the slowest, and content with less
    pair.fixed.save(tmp_path / "fixed.nii")
    pair.moving.save(tmp_path / "moving.nii")
    found = contestants.align(name, str(tmp_path / "fixed.nii"), str(tmp_path / "moving.nii"))
    assert score(pair, np.array(found["matrix"]))["error"] < 0.03 < 0.04 < score(pair, np.eye(4))["error"]
