"""The optimiser that looks at the pair first."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from regcore.errors import InputError
from regcore.evaluation.regularity import folds
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method, methods_with
from regcore.methods.base import Channel, GuidingLabels, Registration
from regcore.methods.instance import Instance

SHAPE = (96, 80)
GRID = Grid.centred(SHAPE, spacing=(1, 1), centre=(0, 0))
#: Intensities of air, two tissues and fluid in two contrasts: neither a rising nor a falling function relates them.
ONE, OTHER = (0.0, 0.9, 0.6, 0.3), (0.0, 0.45, 0.6, 0.95)


def _classes(push: float) -> np.ndarray:
    """A made brain: tissues that wave; ``push`` voxels of smooth motion."""
    x, y = np.indices(SHAPE).astype(float)
    bump = np.exp(-((x - 44) ** 2 + (y - 36) ** 2) / 500)
    x, y = x + push * bump, y - 0.7 * push * bump
    radius = np.hypot((x - 47.5) / 40, (y - 39.5) / 32)
    waves = np.sin(x / 4.5) * np.cos(y / 5.5) + 0.4 * np.sin(x / 9 + y / 7)
    inside = np.where(waves > 0.35, 1, np.where(waves > -0.45, 2, 3))
    return np.where(radius < 1, inside, 0)


def _image(classes: np.ndarray, contrast: tuple[float, ...], seed: int) -> Volume:
    image = gaussian_filter(np.array(contrast)[classes], 0.8)
    noise = 0.02 * np.random.default_rng(seed).standard_normal(SHAPE)
    return Volume(np.clip(image + noise * (classes > 0), 0, 1).astype(np.float32), GRID)


def _overlap(field: DisplacementField, fixed: np.ndarray, moving: np.ndarray) -> float:
    warped = field.warp(Volume(moving.astype(np.int32), GRID), nearest=True).data
    return float((warped == fixed)[fixed > 0].mean())


FIXED, MOVING = _classes(0), _classes(5)
NONE = DisplacementField.identity(GRID)


def test_one_contrast_is_registered_as_by_the_optimiser():
    pair = _image(FIXED, ONE, 0), _image(MOVING, ONE, 1)
    found = make_method("auto").register(*pair)
    assert found.choices["contrasts"] == "same" and found.choices["agreement"] > 0.9
    assert found.choices["smooth_field"] == 0.7 and found.choices["ignored_beyond_the_other"] is None
    plain = make_method("instance", {"smooth_field": 0.7}).register(*pair)
    np.testing.assert_array_equal(found.field.displacement, plain.field.displacement)
    assert found.inverse is not None


def test_two_contrasts_are_brought_onto_each_other():
    pair = _image(FIXED, ONE, 0), _image(MOVING, OTHER, 1)
    found = make_method("auto").register(*pair)
    assert found.choices["contrasts"] == "different" and found.choices["agreement"] < 0.8
    before, after = (_overlap(field, FIXED, MOVING) for field in (NONE, found.field))
    assert after > before + 0.15 and after > 0.9, (before, after)
    assert folds(found.field.displacement) == 0
    # Local correlation alone finds less: what looks alike is not the same tissue.
    assert after > _overlap(make_method("instance").register(*pair).field, FIXED, MOVING)


def test_what_is_known_of_the_contrasts_is_not_looked_for():
    pair = _image(FIXED, ONE, 0), _image(MOVING, ONE, 1)
    assert make_method("auto", {"contrasts": "different"}).register(*pair).choices["contrasts"] == "different"


def test_what_only_one_image_shows_does_not_pull():
    """A head and an extracted brain: the skull has nothing to lie on."""
    x, y = np.indices(SHAPE)
    brain, gap, skull = (np.hypot((x - 47.5) / a, (y - 39.5) / b) < 1 for a, b in ((30, 24), (33, 27), (46, 38)))
    image = _image(FIXED, ONE, 0)
    wall = np.where(skull & ~gap, 0.5 + 0.3 * np.sin(x / 3), 0)
    head = image.with_data(np.where(brain, image.data, wall).astype(np.float32))
    extracted = image.with_data((image.data * brain).astype(np.float32))
    found = make_method("auto").register(head, extracted)
    assert found.choices["ignored_beyond_the_other"] == "fixed"
    errors = [
        field.displacement[0].norm(dim=0).numpy()[brain].mean()
        for field in (found.field, make_method("instance").register(head, extracted).field)
    ]
    assert errors[0] < 0.1 and errors[0] < errors[1] / 5, errors


def test_a_field_that_makes_the_images_less_alike_is_not_handed_over(monkeypatch):
    tried = []

    def destroyed(self, fixed, moving, *masks, **others):
        tried.append(self.settings.smooth_field)
        field = DisplacementField.identity(GRID)
        field.displacement[:, 0] = 60
        return Registration(field)

    monkeypatch.setattr(Instance, "register", destroyed)
    found = make_method("auto").register(_image(FIXED, ONE, 0), _image(MOVING, ONE, 1))
    assert found.field.displacement.abs().max() == 0 and found.inverse.displacement.abs().max() == 0
    assert tried == [0.7, 1.05, 1.58, 2.37, 3.56], tried
    assert found.choices["smooth_field"] is None and "alignment" in found.choices["kept"]


def test_more_smoothing_is_tried_before_that(monkeypatch):
    register = Instance.register

    def rough_is_wrong(self, fixed, moving, *masks, **others):
        found = register(self, fixed, moving, *masks, **others)
        if self.settings.smooth_field < 1:
            found.field.displacement[:, 0] += 60
        return found

    monkeypatch.setattr(Instance, "register", rough_is_wrong)
    found = make_method("auto").register(_image(FIXED, ONE, 0), _image(MOVING, ONE, 1))
    assert found.choices["smooth_field"] == 1.05
    assert _overlap(found.field, FIXED, MOVING) > _overlap(NONE, FIXED, MOVING)


def test_unrelated_images_are_left_as_they_were_aligned():
    noise = [gaussian_filter(np.random.default_rng(seed).random(SHAPE), 2) for seed in (0, 1)]
    images = [Volume(((n - n.min()) / (n.max() - n.min())).astype(np.float32), GRID) for n in noise]
    found = make_method("auto").register(*images)
    assert found.choices["contrasts"] == "different" and found.choices["disagreement"] > 0.03
    assert found.choices["smooth_field"] is None and "both directions" in found.choices["kept"]
    assert found.field.displacement.abs().max() == 0


def test_channels_labels_and_masks_are_passed_on():
    assert {"auto"} <= {*methods_with("uses_masks")} & {*methods_with("uses_channels")} & {*methods_with("uses_labels")}
    fixed, moving = _image(FIXED, ONE, 0), _image(MOVING, OTHER, 1)
    alone = make_method("auto").register(fixed, moving)
    channel = Channel(_image(FIXED, OTHER, 2), _image(MOVING, OTHER, 3), 0.5)
    both = make_method("auto").register(fixed, moving, channels=[channel])
    assert _overlap(both.field, FIXED, MOVING) > _overlap(alone.field, FIXED, MOVING)
    maps = [Volume(classes.astype(np.int32), GRID) for classes in (FIXED, MOVING)]
    guided = make_method("auto").register(fixed, moving, labels=GuidingLabels(*maps, weight=1))
    assert _overlap(guided.field, FIXED, MOVING) > _overlap(alone.field, FIXED, MOVING)
    hidden = fixed.with_data(np.zeros(SHAPE, np.uint8))
    masked = make_method("auto").register(fixed, moving, fixed_mask=hidden)
    assert masked.field.displacement.abs().max() < 1e-3


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="'shrink' has 2 levels and 'iterations' 4"):
        make_method("auto", {"shrink": [2, 1]})
    with pytest.raises(InputError, match="contrasts"):
        make_method("auto", {"contrasts": "both"})


def test_volumes_too():
    shape = (32, 28, 30)
    grid = Grid.centred(shape, spacing=(1, 1, 1), centre=(0, 0, 0))
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2.5)
    classes = (np.argsort(np.argsort(noise, axis=None)).reshape(shape) * 3 // noise.size) + 1
    fixed, moving = (Volume(gaussian_filter(np.array(c)[classes], 0.7).astype(np.float32), grid) for c in (ONE, OTHER))
    shifted = moving.with_data(np.roll(moving.data, 2, axis=1))
    found = make_method("auto", {"iterations": [20, 20, 20, 10]}).register(fixed, shifted)
    middle = found.field.displacement[0, :, 8:-8, 8:-8, 8:-8].mean((1, 2, 3))
    np.testing.assert_allclose(middle, [0, 2, 0], atol=0.5)


@pytest.mark.parametrize("shape", [(40, 44, 3), (40, 44, 2), (64, 3)])
@pytest.mark.parametrize("inverted", [False, True])
def test_few_slices_are_enough(shape, inverted):
    grid = Grid.centred(shape, spacing=(1,) * len(shape), centre=(0,) * len(shape))
    sigma = [2.0, 2.0, 0.5] if len(shape) == 3 else [2.0, 0.5]
    image = gaussian_filter(np.random.default_rng(0).random(shape), sigma)
    image = ((image - image.min()) / np.ptp(image)).astype(np.float32)
    moved = np.roll(image, 2, axis=0)
    pair = Volume(image, grid), Volume(1 - moved if inverted else moved, grid)
    found = make_method("auto").register(*pair)
    assert found.choices["contrasts"] == ("different" if inverted else "same")
    along = found.field.displacement[0, 0][8:-8].median()
    assert 1 < along < 3, along


def test_a_given_smoothing_is_used_however_large():
    found = make_method("auto", {"smooth_field": 6}).register(_image(FIXED, ONE, 0), _image(MOVING, ONE, 1))
    assert found.choices["smooth_field"] == 6 and found.field.displacement.abs().max() > 0.1
