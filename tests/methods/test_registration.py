"""Scans on any grids, registered on the common one: what a method is given."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regcore.alignment.aligner import Aligned
from regcore.alignment.preprocess import Scan, placed
from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method
from regcore.methods.base import Registration, as_tensor
from regcore.methods.registration import register_scans

SHAPE = (64, 60)
COMMON = Grid.centred(SHAPE, (1, 1), (0, 0))
FAR = np.linalg.norm((np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(SHAPE) / 2) / (26, 22), axis=-1)


class Noting:
    """A method that notes the masks, channels and labels it is given."""

    aligned, uses_masks, uses_channels, uses_labels = True, True, True, True

    def register(self, fixed, moving, channels=(), labels=None, **masks):
        self.images = {"fixed": fixed.data, "moving": moving.data}
        self.channels, self.labels = channels, labels
        self.masks = {name: None if mask is None else mask.data for name, mask in masks.items()}
        return Registration(DisplacementField.identity(fixed.grid), None)


def textured(generator) -> Volume:
    texture = gaussian_filter(generator.standard_normal(SHAPE), 2.5)
    texture = 0.3 + 0.7 * (texture - texture.min()) / np.ptp(texture)
    return Volume(np.where(FAR < 1, texture, 0).astype(np.float32), COMMON)


def cut(image: Volume, rows: int) -> Volume:
    return Volume(image.data[:rows], Grid((rows, SHAPE[1]), image.grid.affine))


def on_common(image: Volume, mask: Volume | None = None):
    return placed(Scan(image, mask), Aligned(np.eye(3), "none"), COMMON, PreprocessSettings())


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_content_beyond_the_other_scan_s_field_of_view_is_excluded(side, generator):
    image, noting = textured(generator), Noting()
    scans = {"fixed": on_common(image), "moving": on_common(image)} | {side: on_common(cut(image, 40))}
    register_scans(noting, scans["fixed"], scans["moving"])
    assert noting.masks.pop(f"{side}_mask")[:, 0].tolist() == [1] * 40 + [0] * 24
    assert list(noting.masks.values()) == [None]
    other = noting.images["moving" if side == "fixed" else "fixed"]  # ends where the first does
    assert other[40:].max() == 0 < other[39].max()


def test_a_view_that_ends_in_air_excludes_nothing(generator):
    image, noting = textured(generator), Noting()
    assert image.data[61:].max() == 0 < image.data[57].max()
    register_scans(noting, on_common(image), on_common(cut(image, 61)))
    assert noting.masks == {"fixed_mask": None, "moving_mask": None}
    np.testing.assert_array_equal(noting.images["fixed"], on_common(image).image.data)


def test_a_given_mask_counts_within_the_field_of_view(generator):
    image, noting = textured(generator), Noting()
    lesion = (FAR > 0.3).astype(np.uint8)
    scan = on_common(cut(image, 40), Volume(lesion[:40], cut(image, 40).grid))
    register_scans(noting, on_common(image), scan)
    np.testing.assert_array_equal(noting.masks["moving_mask"][:39], lesion[:39])
    assert not noting.masks["moving_mask"][40:].any()


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_what_a_scan_does_not_cover_does_not_pull(side, generator, monkeypatch):
    image = textured(generator)
    bent = np.stack([gaussian_filter(generator.standard_normal(SHAPE), 7) for _ in SHAPE])
    bent *= 1.5 / np.sqrt((bent**2).mean())
    truth = DisplacementField(torch.from_numpy(bent[None]).float(), COMMON)
    images = {"fixed": truth.warp(image), "moving": image}
    method = make_method("instance", {"shrink": [4, 2, 1], "iterations": [40, 40, 40]})

    def error(given) -> float:
        found = register_scans(method, *(on_common(given[name]) for name in ("fixed", "moving"))).field
        wrong = np.linalg.norm(found.displacement[0].numpy() - bent[:, : found.grid.shape[0]], axis=0)
        return wrong[12:36, 12:48].mean()  # where both show the disc

    partial = error(images | {side: cut(images[side], 40)})
    with monkeypatch.context() as patch:
        patch.setattr("regcore.methods.registration.BEYOND", 1.0)
        pulled = error(images | {side: cut(images[side], 40)})
    assert partial < 0.4 * pulled, (partial, pulled)


def test_each_channel_is_cut_to_its_own_field_of_view(generator):
    image, other, noting = textured(generator), textured(generator), Noting()
    fixed = replace(on_common(image), channels=(on_common(cut(other, 40)), on_common(other)))
    moving = replace(on_common(image), channels=(on_common(other), on_common(other)))
    register_scans(noting, fixed, moving, weights=[2, 1, 1])
    assert list(noting.masks.values()) == [None, None]
    first, second = noting.channels
    assert [first.weight, second.weight] == [0.25, 0.25]
    assert first.fixed_mask.data[:, 0].tolist() == [1] * 40 + [0] * 24
    assert first.moving.data[40:].max() == 0 < first.moving.data[39].max()
    assert second.fixed_mask is None
    np.testing.assert_array_equal(second.moving.data, on_common(other).image.data)


def test_labels_beyond_the_field_of_view_of_a_scan_do_not_guide(generator):
    image, noting = textured(generator), Noting()
    labels = Volume(np.where(np.indices(SHAPE)[0] < 50, 1, 2).astype(np.int32), COMMON)
    fixed, moving = (replace(scan, labels=labels) for scan in (on_common(cut(image, 40)), on_common(image)))
    register_scans(noting, fixed, moving, label_weight=3)
    for guiding in (noting.labels.fixed, noting.labels.moving):
        assert guiding.data[:, 0].tolist() == [1] * 40 + [0] * 24
    assert noting.labels.weight == 3
    beyond = Volume(np.where(np.indices(SHAPE)[0] < 50, 0, 2).astype(np.int32), COMMON, Path("fixed_labels.nii"))
    with pytest.raises(InputError, match=r"fixed_labels\.nii.*no label is in both maps where both"):
        register_scans(noting, replace(fixed, labels=beyond), replace(moving, labels=beyond))


def test_channels_and_labels_of_scans_reach_the_optimiser(generator):
    scans = [textured(generator) for _ in range(4)]
    labels = [Volume((scan.data > 0.6).astype(np.int32), COMMON) for scan in scans[:2]]
    fixed, moving = (
        replace(on_common(image), channels=(on_common(further),), labels=shown)
        for image, further, shown in zip(scans[:2], scans[2:], labels, strict=True)
    )
    method = make_method("instance", {"shrink": [4, 2], "iterations": [5, 5]})
    found = register_scans(method, fixed, moving, weights=[3, 1], label_weight=2).field.displacement
    sides = [
        torch.stack([as_tensor(scan.image)[0, 0] for scan in (side, *side.channels)])[None] for side in (fixed, moving)
    ]
    maps = tuple(torch.from_numpy(shown.data)[None, None] for shown in labels)
    expected, _ = method.optimise(*sides, np.ones(2), weights=[3, 1], labels=maps, label_weight=2)
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=0)
