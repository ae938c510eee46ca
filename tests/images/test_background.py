"""The background of an image is found whatever its value, its noise, and whatever the image cuts off."""

import numpy as np
import pytest

from regcore.images.background import background, outline
from regcore.images.volume import Grid, Volume


def scan(values: np.ndarray) -> Volume:
    return Volume(values, Grid.centred(values.shape, [1.0] * values.ndim, [0.0] * values.ndim))


def head(shape: tuple[int, ...], outside: float, inside: float) -> np.ndarray:
    """An ellipsoid in air that leaves a tenth of the width free on either side."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return np.where(sum(a**2 for a in axes) < 0.8**2, inside, outside)


SHAPES = pytest.mark.parametrize("shape", [(40, 50), (30, 40, 35)], ids=["2-D", "3-D"])


@SHAPES
@pytest.mark.parametrize("outside", [-1000.0, 0.0, 255.0])
def test_a_constant_background_is_found_exactly(shape, outside):
    assert background(scan(head(shape, outside, 40.0))) == outside


@SHAPES
@pytest.mark.parametrize(("outside", "inside"), [(20.0, 300.0), (240.0, 90.0)], ids=["dark", "bright"])
def test_a_noisy_background_is_its_middle(shape, outside, inside, generator):
    noisy = head(shape, outside, inside) + generator.normal(0, 5, shape)
    assert background(scan(noisy)) == pytest.approx(outside, abs=2)


def test_a_slab_through_the_object_still_has_the_background_of_its_outline():
    slab = head((40, 50, 40), -1000.0, 40.0)[:, :, 18:22]
    assert background(scan(slab)) == -1000


def test_padding_on_one_side_is_the_background(generator):
    image = generator.normal(100, 20, (20, 20, 30))
    image[..., 20:] = -5
    assert background(scan(image)) == -5


def test_the_padding_of_a_circular_field_of_view_counts_not_the_air_inside_it():
    x, y = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 60), indexing="ij")
    ct = np.where(x**2 + y**2 < 1, head((60, 60), -1000.0, 40.0), -3024.0)
    assert background(scan(ct)) == -3024


def test_where_the_object_fills_the_image_the_dark_end_of_the_outline_counts(generator):
    tissue = generator.uniform(200, 900, (30, 30, 30))
    assert 200 < background(scan(tissue)) < 290


def test_integers_give_the_same_as_floats():
    image = head((20, 20, 20), -1024.0, 60.0)
    assert background(scan(image.astype(np.int16))) == background(scan(image)) == -1024


def test_an_object_that_cuts_the_border_does_not_hide_the_air(generator):
    body = head((40, 40, 12), 0.0, 500.0) + np.abs(generator.normal(0, 4, (40, 40, 12)))
    body[10:30, 10:30, :] = 500  # through both ends of the scan
    assert background(scan(body)) == pytest.approx(3, abs=3)


def test_the_outline_has_every_edge_voxel_once():
    index = np.arange(4 * 5 * 3).reshape(4, 5, 3)
    found = outline(index)
    expected = [
        index[i, j, k]
        for i in range(4)
        for j in range(5)
        for k in range(3)
        if (i in (0, 3)) + (j in (0, 4)) + (k in (0, 2)) >= 2
    ]
    assert sorted(found.tolist()) == sorted(expected)
