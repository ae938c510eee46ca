"""Fields made elsewhere: what is read is the map that was meant, and what cannot be used says why."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import map_coordinates

from regcore.errors import InputError, RegistrationFailed
from regcore.images.field import DisplacementField, read_voxel_field
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method

FIXED = Grid((14, 12, 10), np.array([[0, 0, -3, 20], [-1, 0, 0, 5], [0, 2, 0, -30], [0, 0, 0, 1.0]]))
MOVING = Grid((13, 15, 11), np.array([[2, 0, 0, -9], [0, -1, 0, 3], [0, 0, 2, -21], [0, 0, 0, 1.0]]))
FLAT = Grid((14, 12), np.array([[0, 3, -8], [-1, 0, 5], [0, 0, 1.0]]))


def write_voxels(path, displacement):
    """As a Learn2Reg submission: components last, a header that says nothing."""
    nib.save(nib.Nifti1Image(displacement.astype(np.float32), np.eye(4)), path)


@pytest.mark.parametrize(("fixed", "moving"), [(FIXED, MOVING), (FLAT, FLAT)], ids=["3-D", "2-D"])
def test_a_learn2reg_field_warps_as_the_challenge_does(tmp_path, generator, random_displacement, fixed, moving):
    """The challenge's evaluation: ``map_coordinates(moving, identity + displacement)``, arrays alone."""
    displacement = np.moveaxis(random_displacement(fixed.shape, 1.0, 2.0)[0].numpy(), 0, -1)
    write_voxels(tmp_path / "disp.nii.gz", displacement)
    image = generator.random(moving.shape).astype("f4")
    points = np.stack(np.meshgrid(*map(np.arange, fixed.shape), indexing="ij")) + np.moveaxis(displacement, -1, 0)
    expected = map_coordinates(image, points, order=1, mode="constant", cval=0)
    found = read_voxel_field(tmp_path / "disp.nii.gz", fixed, moving).warp(Volume(image, moving)).data
    inside = np.all([(p > 0) & (p < n - 1) for p, n in zip(points, moving.shape, strict=True)], axis=0)
    assert inside.mean() > 0.4
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-4)


def test_a_field_of_simpleitk_is_taken_as_it_is(tmp_path):
    """Written by SimpleITK from a transform of its own."""
    Volume(np.random.default_rng(0).random(FIXED.shape).astype("f4"), FIXED).save(tmp_path / "fixed.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "fixed.nii.gz"))
    transform = sitk.TranslationTransform(3, (1.0, -2.0, 0.5))
    vectors = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    sitk.WriteImage(vectors, str(tmp_path / "field.nii.gz"))
    found = make_method("imported", {"folder": "x"}).read(tmp_path / "field.nii.gz", FIXED, MOVING)
    moved = found.targets() - DisplacementField.identity(FIXED).targets()
    np.testing.assert_allclose(moved, np.broadcast_to([-1.0, 2.0, 0.5], moved.shape), atol=1e-4)


def test_what_cannot_be_used_says_why(tmp_path):
    itk, learn2reg = (make_method("imported", {"folder": "x", "format": kind}) for kind in ("itk", "learn2reg"))
    good = tmp_path / "good.nii.gz"
    DisplacementField.identity(FIXED).save(good)
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(good.read_bytes()[:-20])
    nan = np.zeros((*FIXED.shape, 3))
    nan[3, 3, 3, 1] = np.nan
    write_voxels(tmp_path / "nan.nii.gz", nan)
    assert itk.read(good, FIXED, MOVING).displacement.abs().max() < 1e-6
    for method, path, words in [
        (itk, None, "names no field"),
        (itk, tmp_path / "absent.nii.gz", "absent.nii.gz: no such file"),
        (itk, damaged, r"damaged\.nii\.gz: truncated"),
        (learn2reg, good, r"good\.nii\.gz: the fixed image .* needs a field of shape \(14, 12, 10, 3\)"),
        (learn2reg, tmp_path / "nan.nii.gz", "NaN"),
    ]:
        with pytest.raises(RegistrationFailed, match=words):
            method.read(path, FIXED, MOVING)
    with pytest.raises(RegistrationFailed, match=r"good\.nii\.gz: the field is not on the grid"):
        itk.read(good, MOVING, MOVING)
    with pytest.raises(InputError, match="registers nothing"):
        itk.register(None, None)
