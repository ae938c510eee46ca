"""The embedded cohort: anatomy, known maps, contrasts, repeatability."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt
from support.marks import marks_its_tests

from regcore.cohort.landmarks import read_landmarks
from regcore.cohort.table import checked_cohort
from regcore.errors import InputError
from regcore.evaluation.overlap import dice
from regcore.evaluation.regularity import folds
from regcore.images.field import read_field
from regcore.images.volume import read_labels, read_volume
from regcore.study.stages.register import true_field
from regcore.synthesis.anatomy import build_anatomy
from regcore.synthesis.icbm152 import cohort_table, label_table, synthesise
from regcore.synthesis.mr_contrast import (
    TISSUES,
    contrast_signal,
    magnetisation_prepared,
    spin_echo,
    spoiled_gradient_echo,
    tissue_signals,
)
from regcore.synthesis.settings import EmbeddedSettings


def settings(**changes):
    return EmbeddedSettings.read({"train": 2, "validation": 2, "test": 4} | changes, "embedded")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The default slice cohort, small, as a checked cohort."""
    folder = tmp_path_factory.mktemp("cohort")
    chosen = settings(contrasts=["T1w", "T2w"])
    table = cohort_table(chosen)
    synthesise(chosen, list(dict.fromkeys(table["subject"])), 1, folder)
    return checked_cohort(table, folder / "cohort.tsv")


def test_the_slice_has_at_least_sixteen_labels_of_four_groups():
    anatomy = build_anatomy(2, 1.0, -14)
    counts = np.bincount(anatomy.labels.ravel(), minlength=len(anatomy.table) + 1)[1:]
    assert len(anatomy.table) >= 16
    assert set(anatomy.table["group"]) == {"cortex", "deep grey", "white matter", "csf"}
    assert counts.min() >= 50
    brain = sum(anatomy.fractions.values()) > 0.5
    assert (anatomy.labels[brain] > 0).all(), "every voxel of the brain has a label"


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_anatomy_is_where_it_should_be(ndim):
    anatomy = build_anatomy(ndim, 3.0 if ndim == 3 else 1.0, -14)
    centres = {}
    for row in anatomy.table.itertuples():
        centres[row.name] = anatomy.grid.to_world(np.argwhere(anatomy.labels == row.index)).mean(0)
    up = ndim - 1
    for name, centre in centres.items():
        if name.startswith("left-"):
            mirrored = centre * np.where(np.arange(ndim) == 0, -1, 1)
            assert centre[0] < 0
            # The template is symmetric; the mid-sagittal plane of voxels goes to one side.
            assert np.abs(mirrored - centres["right-" + name.removeprefix("left-")]).max() < anatomy.grid.spacing[0]
    assert centres["left-paracentral"][up] > centres["left-insula"][up] > centres["left-fusiform"][up]
    assert abs(centres["left-insula"][0]) > abs(centres["left-thalamus"][0])
    if ndim == 3:
        assert centres["left-lateral-occipital"][1] < centres["left-insula"][1] < centres["left-frontal-pole"][1]


def test_fractions_are_fractions():
    anatomy = build_anatomy(2, 1.0, -14)
    total = sum(anatomy.fractions.values())
    assert total.min() >= 0 and total.max() <= 1 + 1e-6


def test_signal_equations_at_their_limits():
    grey = TISSUES["grey"]
    assert spin_echo(grey, 1e6, 0) == pytest.approx(grey.pd)
    assert spoiled_gradient_echo(grey, 1e6, 0, 90) == pytest.approx(grey.pd)
    assert spoiled_gradient_echo(grey, 18, 0, 90) == pytest.approx(spin_echo(grey, 18, 0))
    # The Ernst angle, cos α = exp(−TR / T1), gives the largest signal.
    ernst = np.degrees(np.arccos(np.exp(-18 / grey.t1)))
    best = spoiled_gradient_echo(grey, 18, 10, ernst)
    assert best > max(spoiled_gradient_echo(grey, 18, 10, ernst + d) for d in (-2, 2))


@pytest.mark.parametrize("tissue", TISSUES)
def test_mprage_is_what_a_simulation_in_small_steps_finds(tissue):
    """Twenty repetitions of the pulse sequence, from equilibrium."""
    made = TISSUES[tissue]
    magnetisation, signal = 1.0, 0.0
    for _ in range(20):
        magnetisation = -magnetisation
        for step in range(5000):  # 1 ms each
            since = step - (700 - 40 * 7)
            if since >= 0 and since % 7 == 0 and since // 7 < 80:
                if since // 7 == 40:
                    signal = magnetisation
                magnetisation *= np.cos(np.deg2rad(4))
            magnetisation = 1 - (1 - magnetisation) * np.exp(-1 / made.t1)
    expected = made.pd * abs(signal) * np.sin(np.deg2rad(4)) * np.exp(-2.98 / made.t2_star)
    assert contrast_signal(made, "MPRAGE-700") == pytest.approx(expected, rel=1e-6)


def test_an_inversion_without_pulses_recovers_as_inversion_recovery_does():
    grey = TISSUES["grey"]
    found = magnetisation_prepared(grey, 3000, 600, 0, 1e-3, 1, 5) / np.sin(np.deg2rad(1e-3))
    expected = abs(1 - (2 * np.exp(-600 / grey.t1) - 0) / (1 + np.exp(-3000 / grey.t1)))
    assert found == pytest.approx(grey.pd * expected, rel=1e-6)


def test_a_train_of_pulses_has_to_fit():
    with pytest.raises(ValueError, match="do not fit around TI = 100 ms"):
        magnetisation_prepared(TISSUES["grey"], 3000, 100, 3, 4, 80, 7)


def test_series_of_contrasts_go_from_one_order_of_tissues_to_the_other():
    low, high = tissue_signals("FLASH-2"), tissue_signals("FLASH-40")
    assert low["csf"] > low["grey"] > low["white"], "proton density"
    assert high["white"] > high["grey"] > high["csf"], "T1"
    assert tissue_signals("MPRAGE-900")["white"] > tissue_signals("MPRAGE-900")["grey"]


@pytest.mark.parametrize("contrast", ["FLASH-1", "FLASH-41", "MPRAGE-200", "MPRAGE-1001"])
def test_contrasts_beyond_their_series(contrast):
    with pytest.raises(InputError, match=f"cohort.embedded.contrasts: {contrast} is outside"):
        cohort_table(settings(contrasts=["T1w", contrast]))


def test_contrasts_order_the_tissues_as_on_a_scanner():
    t1, t2, pd_ = (tissue_signals(c) for c in ("T1w", "T2w", "PDw"))
    assert t1["white"] > t1["deep"] > t1["grey"] > t1["csf"]
    assert t2["csf"] > t2["grey"] > t2["deep"] > t2["white"]
    assert pd_["csf"] > pd_["grey"] > pd_["white"]


def test_the_true_field_leads_from_fixed_to_moving(cohort):
    codes = label_table(settings())["index"]
    for fixed, moving in [("sub-005_1_T1w", "sub-006_1_T1w"), ("sub-007_1_T1w", "icbm152_1_T1w")]:
        truth = true_field(cohort, fixed, moving)
        f, m = (read_labels(cohort.file(scan, "labels")) for scan in (fixed, moving))
        before = np.nanmean(dice(f.data, m.data, codes))
        after = np.nanmean(dice(f.data, truth.warp(m, nearest=True).data, codes))
        # Two nearest-neighbour samplings cost a few per cent of 3 mm thick cortex.
        assert after > 0.9 > 0.75 > before
        assert folds(truth.displacement, f.data > 0) == 0
        a, b = (read_landmarks(cohort.file(scan, "landmarks"), 2) for scan in (fixed, moving))
        assert np.linalg.norm(truth.at(a.to_numpy()) - b.to_numpy(), axis=1).max() < 0.1


def test_the_two_directions_of_a_map_undo_each_other_inside_the_brain(cohort):
    scan = "sub-003_1_T1w"
    there, back = (read_field(cohort.file(scan, column)) for column in ("to_template", "from_template"))
    points = there.grid.to_world(np.argwhere(read_labels(cohort.file(scan, "labels")).data > 0))
    # Linear interpolation of both fields between their voxels leaves some hundredths of a millimetre.
    assert np.linalg.norm(back.at(there.at(points)) - points, axis=1).max() < 0.1


def test_dice_before_registration_is_as_in_the_papers(cohort):
    codes = label_table(settings())["index"]
    subjects = [scan for scan in cohort.table.index if scan.startswith("sub-") and scan.endswith("T1w")]
    maps = {scan: read_labels(cohort.file(scan, "labels")).data for scan in subjects}
    means = [np.nanmean(dice(maps[a], maps[b], codes)) for a, b in itertools.combinations(subjects, 2)]
    assert 0.55 <= np.mean(means) <= 0.65


def test_contrasts_of_a_subject_share_their_anatomy_and_differ_in_their_order(cohort):
    t1, t2 = (read_volume(cohort.file(f"sub-001_1_{c}", "image")).data for c in ("T1w", "T2w"))
    assert ((t1 > 0) == (t2 > 0)).mean() > 0.999
    brain = t1 > 0
    assert np.corrcoef(t1[brain], t2[brain])[0, 1] < -0.5


@pytest.mark.slow
def test_a_subject_is_the_same_alone_and_among_others_and_changes_with_the_seed(tmp_path):
    chosen = settings(spacing=3)
    synthesise(chosen, ["sub-001", "sub-002"], 1, tmp_path / "both")
    synthesise(chosen, ["sub-002"], 1, tmp_path / "alone")
    synthesise(chosen, ["sub-002"], 2, tmp_path / "other")
    both, alone, other = (read_volume(tmp_path / f / "sub-002_T1w.nii.gz").data for f in ("both", "alone", "other"))
    np.testing.assert_array_equal(both, alone)
    assert not np.array_equal(both, other)


@pytest.mark.slow
def test_three_dimensions_come_from_the_same_code(tmp_path):
    chosen = settings(ndim=3, spacing=4)
    synthesise(chosen, ["sub-001"], 1, tmp_path)
    image, labels = read_volume(tmp_path / "sub-001_T1w.nii.gz"), read_labels(tmp_path / "sub-001_labels.nii.gz")
    assert image.grid.ndim == 3 and image.grid.same_as(labels.grid)
    assert len(np.unique(labels.data)) > 40
    assert read_field(tmp_path / "sub-001_to_template.nii.gz").displacement.shape[1] == 3


def test_the_table_lists_every_file_that_is_made(cohort):
    made = {path.name for path in cohort.path.parent.iterdir()}
    listed = {Path(value).name for scan in cohort.table.index for value in cohort.files(scan).values()}
    assert made == listed
    assert isinstance(cohort.table, pd.DataFrame) and cohort.scans("atlas", "T1w") == ["icbm152_1_T1w"]


@pytest.fixture(scope="module")
def scanned_twice(tmp_path_factory):
    """Three subjects with two sessions each, in two datasets, as a checked cohort."""
    folder = tmp_path_factory.mktemp("twice")
    chosen = settings(
        sessions=2, session_deformation_mm=2, datasets={"noisy": {"noise": 0.2, "bias": 0.1}, "clean": None}
    )
    table = cohort_table(chosen)
    table = table[table["subject"].isin(["sub-005", "sub-006", "sub-007"])]
    synthesise(chosen, list(dict.fromkeys(table["subject"])), 1, folder)
    return checked_cohort(table, folder / "cohort.tsv")


@pytest.mark.parametrize(("fixed", "moving"), [("005_2", "005_1"), ("005_1", "005_2"), ("005_2", "007_2")])
def test_the_true_field_leads_between_any_two_sessions(scanned_twice, fixed, moving):
    fixed, moving = f"sub-{fixed}_T1w", f"sub-{moving}_T1w"
    truth = true_field(scanned_twice, fixed, moving)
    a, b = (read_landmarks(scanned_twice.file(scan, "landmarks"), 2).to_numpy() for scan in (fixed, moving))
    assert np.linalg.norm(truth.at(a) - b, axis=1).max() < 0.1 < np.linalg.norm(a - b, axis=1).mean()
    f, m = (read_labels(scanned_twice.file(scan, "labels")) for scan in (fixed, moving))
    codes = label_table(settings())["index"]
    after = np.nanmean(dice(f.data, truth.warp(m, nearest=True).data, codes))
    assert after > 0.9 and after > np.nanmean(dice(f.data, m.data, codes)) + 0.02
    assert folds(truth.displacement, f.data > 0) == 0


def test_a_later_session_is_the_same_anatomy_a_little_deformed_and_scanned_anew(scanned_twice):
    scans = [f"sub-005_{session}_T1w" for session in (1, 2)]
    inside = read_labels(scanned_twice.file(scans[0], "labels")).data > 0
    field = true_field(scanned_twice, *scans)
    moved = np.asarray(field.displacement)[0][:, inside]
    assert 0.8 < np.sqrt((moved**2).sum(0).mean()) < 2.4, "voxels are of 1 mm; the middle moves less than the border"
    first, second = (read_volume(scanned_twice.file(scan, "image")) for scan in scans)
    a, b = first.data[inside], field.warp(second).data[inside]
    assert abs(a.mean() / b.mean() - 1) > 0.01, "the gain is drawn again"
    assert 0.02 < (a / a.mean() - b / b.mean()).std() < 0.2, "and noise and bias, of an anatomy that is the same"


def content(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.slow
def test_more_sessions_and_datasets_leave_the_first_session_as_it_was(tmp_path):
    wanted = settings(spacing=3, contrasts=["T1w", "T2w"])
    synthesise(wanted, ["icbm152", "sub-003"], 5, tmp_path / "one")
    more = settings(spacing=3, contrasts=["T1w", "T2w"], sessions=3, datasets={"a": {}, "b": None})
    synthesise(more, ["icbm152", "sub-003"], 5, tmp_path / "more")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert all(content(tmp_path / "one" / name) == content(tmp_path / "more" / name) for name in files)
    later = [name.replace("sub-003_", f"sub-003_ses-{n}_") for n in (2, 3) for name in files if "sub" in name]
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == sorted(files + later)
    # What studies were made of before there were sessions:
    landmark = pd.read_csv(tmp_path / "one" / "sub-003_landmarks.tsv", sep="\t").iloc[0]
    assert [landmark["x"], landmark["y"]] == pytest.approx([-16.9829, 70.7250], abs=1e-3)
    means = [read_volume(tmp_path / "one" / f"sub-003_{contrast}.nii.gz").data.mean() for contrast in ("T1w", "T2w")]
    assert means == pytest.approx([354.5572, 210.2319], rel=1e-4)


def test_subjects_of_every_split_are_dealt_to_the_datasets(scanned_twice):
    table = cohort_table(settings(train=4, datasets={"noisy": {"noise": 0.2}, "clean": {}}, sessions=2))
    counts = table.drop_duplicates("subject").groupby(["split", "dataset"]).size().to_dict()
    assert counts == {("atlas", "embedded"): 1} | {
        (split, name): n for split, n in (("train", 2), ("validation", 1), ("test", 2)) for name in ("clean", "noisy")
    }
    assert set(cohort_table(settings())["dataset"]) == {"embedded"}
    codes, spread = label_table(settings()).query("group == 'white matter'")["index"], {}
    for scan in ("sub-005_1_T1w", "sub-006_1_T1w"):
        labels = read_labels(scanned_twice.file(scan, "labels")).data
        white = read_volume(scanned_twice.file(scan, "image")).data[np.isin(labels, codes)]
        spread[scanned_twice.table.at[scan, "dataset"]] = white.std() / white.mean()
    assert spread["noisy"] > 2 * spread["clean"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": {"noisy": {"nois": 0.1}}}, "datasets.noisy: unknown key 'nois'; did you mean 'noise'"),
        ({"datasets": {"noisy": {"spacing": 2}}}, "datasets.noisy: unknown key 'spacing'"),
        ({"sessions": 0}, "sessions: 0 is less than"),
        ({"datasets": dict.fromkeys("abc")}, "embedded.train: 2 subjects are too few for 3 datasets"),
    ],
)
def test_wrong_sessions_and_datasets_are_explained(changes, words):
    with pytest.raises(InputError, match=words):
        cohort_table(settings(**changes))


# ---- ventricles of their own size


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def dilated(tmp_path_factory):
    """The same subjects with ventricles as the template's, and with larger ones."""
    folders = {}
    for largest in (None, 6):
        folders[largest] = tmp_path_factory.mktemp("ventricles")
        chosen = settings(**({"ventricles_mm": largest} if largest else {}))
        synthesise(chosen, [f"sub-00{n}" for n in range(1, 6)], 3, folders[largest])
    return folders


def ventricles(folder, subject):
    table = label_table(settings())
    codes = table.loc[table["name"].str.contains("ventricle"), "index"]
    return np.isin(read_labels(folder / f"{subject}_labels.nii.gz").data, codes)


@pytest.mark.slow
def test_ventricles_are_wider_by_a_distance_of_each_subjects_own(dilated):
    """Where they are wider by s mm, so is their area by about s times the length of their outline."""
    sizes = {
        largest: np.array([ventricles(folder, f"sub-00{n}").sum() for n in range(1, 6)])
        for largest, folder in dilated.items()
    }
    grown = sizes[6] / sizes[None]
    assert (grown > 1).all() and grown.max() > 2 and grown.max() > 1.3 * grown.min()


def test_far_from_the_ventricles_nothing_changes(dilated):
    """And the map back is still the inverse of the map forth, without folds."""
    for number in (1, 3, 5):
        subject = f"sub-00{number}"
        forth = {key: read_field(folder / f"{subject}_to_template.nii.gz") for key, folder in dilated.items()}
        template = settings()
        changed = np.linalg.norm(forth[6].targets() - forth[None].targets(), axis=-1)
        anatomy = build_anatomy(template.ndim, template.spacing, template.coronal_mm)
        near = np.isin(anatomy.labels, anatomy.table.loc[anatomy.table["name"].str.contains("ventricle"), "index"])
        distance = distance_transform_edt(~near)
        there = forth[None].at(anatomy.grid.to_world(np.argwhere(np.ones(anatomy.grid.shape))))
        where = anatomy.grid.to_voxels(there).round().astype(int)
        inside = ((where >= 0) & (where < anatomy.grid.shape)).all(1)
        far = np.zeros(anatomy.grid.shape, bool).ravel()
        far[inside] = distance[tuple(where[inside].T)] > 25
        assert changed.ravel()[far].max() < 0.05 and changed.max() > 0.5
        back = read_field(dilated[6] / f"{subject}_from_template.nii.gz")
        points = anatomy.grid.to_world(np.argwhere(anatomy.labels > 0)[::31])
        error = np.linalg.norm(back.at(forth[6].at(points)) - points, axis=1)
        assert error.mean() < 0.05 and np.percentile(error, 99) < 0.5 and error.max() < 1
        assert folds(forth[6].displacement) == 0


def test_a_slice_without_ventricles_cannot_have_larger_ones(tmp_path):
    with pytest.raises(InputError, match="ventricles_mm: no ventricles in this slice"):
        synthesise(settings(ventricles_mm=5, coronal_mm=-85), ["sub-001"], 1, tmp_path)
