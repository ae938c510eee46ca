"""Further images and label maps of a pair: read, brought to the first pair's grid, recorded, and refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from regcore.alignment.aligner import Aligned
from regcore.alignment.preprocess import Scan, placed
from regcore.alignment.settings import PreprocessSettings
from regcore.commands import register as pairwise
from regcore.commands.cli import main
from regcore.commands.guides import Guides, Read
from regcore.images.volume import Grid, Volume

FIXED, MOVING, SECOND = (
    Grid.centred((40, 36), (1.5, 1.5), (0, 0)),
    Grid.centred((44, 40), (1.4, 1.4), (4, -2)),
    Grid.centred((70, 66), (0.9, 0.9), (1, 1)),
)


def disc(grid, centre, radius):
    """A disc with a core, and its label map."""
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    distance = np.linalg.norm((points - centre) / radius, axis=-1)
    labels = (distance < 1).astype(np.int32) + (distance < 0.5)
    return gaussian_filter(labels.astype("f4") ** 0.5 * 100, 1), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two subjects: an image, an inverted one on a finer grid, labels; and what does not fit."""
    folder = tmp_path_factory.mktemp("subjects")
    for name, grid, centre, radius in (("f", FIXED, (0, 0), (18, 18)), ("m", MOVING, (4, -2), (20, 16))):
        image, labels = disc(grid, centre, radius)
        Volume(image, grid).save(folder / f"{name}.nii")
        Volume(labels, grid).save(folder / f"{name}_labels.nii")
        Volume(labels * 10, grid).save(folder / f"{name}_others.nii")
        finer = Grid(SECOND.shape, SECOND.affine.copy())
        Volume(100 - disc(finer, centre, radius)[0], finer).save(folder / f"{name}_2.nii")
    Volume(disc(FIXED, (0, 0), 18)[0], Grid.centred(FIXED.shape, (1.5, 1.5), (500, 0))).save(folder / "far.nii")
    Volume(np.random.default_rng(0).random((6, 6, 6)), Grid.centred((6, 6, 6), (1, 1, 1), (0, 0, 0))).save(
        folder / "3d.nii"
    )
    return folder


def register(folder, out, *options):
    """With names in the folder as options; ``instance`` on coarse levels unless they name a method."""
    words = [str(folder / word) if (folder / str(word)).is_file() else str(word) for word in options]
    if "--method" not in words:
        words += ["--method", "instance", "--set", "shrink=[4, 2]", "--set", "iterations=[20, 20]"]
    given = ["register", str(folder / "f.nii"), str(folder / "m.nii"), "-o", str(out), *words]
    return CliRunner().invoke(main, given, catch_exceptions=False)


def test_channels_and_labels_are_recorded_and_the_labels_declared(folder, tmp_path):
    options = ["--fixed", "f_2.nii", "--moving", "m_2.nii", "--weights", "3", "1"]
    options += ["--fixed-labels", "f_labels.nii", "--moving-labels", "m_labels.nii"]
    result = register(folder, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "must not be reported" in result.output
    report = json.loads((tmp_path / "out/register.json").read_text())
    assert report["channels"] == [
        {"fixed": str(folder / "f.nii"), "moving": str(folder / "m.nii"), "weight": 0.75},
        {"fixed": str(folder / "f_2.nii"), "moving": str(folder / "m_2.nii"), "weight": 0.25},
    ]
    assert report["guiding_labels"] == {
        "fixed": str(folder / "f_labels.nii"),
        "moving": str(folder / "m_labels.nii"),
        "weight": 1.0,
        "codes": [1, 2],
    }
    assert any("guided this registration" in note and "m_labels.nii" in note for note in report["notes"])


def test_without_any_the_record_says_so(folder, tmp_path):
    result = register(folder, tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/register.json").read_text())
    assert report["channels"] is None and report["guiding_labels"] is None and report["notes"] == []


def test_the_method_gets_channels_and_labels_where_the_first_pair_is_aligned(folder, tmp_path, monkeypatch):
    handed, real = [], pairwise.register_scans
    monkeypatch.setattr(pairwise, "register_scans", lambda *scans, **kw: handed.extend(scans[1:]) or real(*scans, **kw))
    options = ["--fixed", "f_2.nii", "--moving", "m_2.nii", "--affine", "centre", "--moving-mask", "m_labels.nii"]
    result = register(
        folder, tmp_path / "out", *options, "--fixed-labels", "f_labels.nii", "--moving-labels", "m_labels.nii"
    )
    assert result.exit_code == 0, result.output
    for scan in handed:
        (channel,) = scan.channels
        for volume in (channel.image, scan.labels):
            assert volume.grid.same_as(handed[0].image.grid)
        ball = scan.image.data > 0.35
        for shown in (channel.image.data < 0.65, scan.labels.data > 0):
            assert 2 * (ball & shown).sum() > 0.95 * (ball.sum() + shown.sum())
    mask, of_channel = handed[1].mask.data > 0, handed[1].channels[0].mask.data > 0
    assert 2 * (mask & of_channel).sum() > 0.9 * (mask.sum() + of_channel.sum())


def test_a_further_image_is_normalised_by_what_the_mask_leaves():
    image = Volume(np.where(np.indices((8, 8))[0] < 4, 1.0, 50.0), Grid.centred((8, 8), (1, 1), (0, 0)))
    image.data[0, 0] = 0
    mask = image.with_data((np.indices((8, 8))[0] < 4).astype(np.uint8))
    scan = Scan(image, mask)
    first = placed(scan, Aligned(np.eye(3), "none"), image.grid, PreprocessSettings())
    found, _ = Read([image], [image], None, None, []).added(first, first, (scan, scan))
    np.testing.assert_array_equal(found.channels[0].image.data, first.image.data)
    np.testing.assert_array_equal(found.channels[0].mask.data, mask.data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fixed", "f_2.nii"], ["--fixed is given once and --moving not at all", "in pairs"]),
        (
            ["--fixed", "f_2.nii", "--moving", "m_2.nii", "--moving", "m.nii"],
            ["--fixed is given once and --moving 2 times"],
        ),
        (["--fixed", "f_2.nii", "--moving", "m_2.nii", "--weights", "1"], ["--weights: 1 given for 2 pairs"]),
        (["--weights", "1", "2"], ["--weights: there is one pair of images"]),
        (["--weights", "1,-2"], ["--weights", "numbers above 0"]),
        (["--fixed-labels", "f_labels.nii"], ["--fixed-labels: give --moving-labels too"]),
        (["--moving-labels", "m_labels.nii"], ["--moving-labels: give --fixed-labels too"]),
        (["--label-weight", "2"], ["--label-weight: give --fixed-labels and --moving-labels"]),
        (["--fixed", "far.nii", "--moving", "m_2.nii"], ["far.nii: does not overlap", "f.nii", "--affine rigid"]),
        (["--fixed", "f_2.nii", "--moving", "3d.nii"], ["3d.nii is 3-D", "m.nii is 2-D"]),
        (
            ["--fixed-labels", "f_labels.nii", "--moving-labels", "far.nii"],
            ["far.nii: does not overlap", "the map of this image"],
        ),
        (
            ["--fixed-labels", "f_labels.nii", "--moving-labels", "m_others.nii"],
            ["f_labels.nii", "m_others.nii", "no label but 0 in common (1, 2; 10, 20)"],
        ),
        (["--fixed-labels", "f_labels.nii", "--moving-labels", "m.nii"], ["m.nii", "whole numbers"]),
        (["--fixed", "none.nii", "--moving", "m_2.nii"], ["none.nii: no such file"]),
        (
            ["--method", "demons", "--fixed", "f_2.nii", "--moving", "m_2.nii"],
            ["--method demons compares one image", "syn, greedy, instance"],
        ),
        (
            ["--method", "syn", "--fixed-labels", "f_labels.nii", "--moving-labels", "m_labels.nii"],
            ["--method syn cannot be guided by labels", "instance"],
        ),
    ],
    ids=lambda value: " ".join(map(str, value))[:60],
)
def test_what_does_not_fit_is_refused_before_any_work(folder, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(pairwise, "prepared_pair", lambda *given: pytest.fail("the work has begun"))
    result = register(folder, tmp_path / "out", *options)
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    assert all(word in result.output for word in words), result.output
    assert len(result.output.strip().splitlines()) == 1 or "Usage" in result.output


def test_an_output_that_is_a_further_image_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    assert register(folder, out).exit_code == 0
    result = register(folder, out, "--fixed", out / "warped.nii.gz", "--moving", "m_2.nii")
    assert result.exit_code == 2 and "warped.nii.gz is one of them" in result.output


def test_equal_weights_by_default():
    further = (Path("a"), Path("b"))
    assert Guides(further, further).shares == [1 / 3] * 3 and Guides().shares == [1]
