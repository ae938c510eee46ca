"""Pictures of pairs, and the view that they share."""

import numpy as np
import pytest
import torch

from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.reporting.figures import save_figure
from regcore.reporting.pictures import ShownPair, View, pair_panels


def test_a_view_turns_any_orientation_to_the_same_picture():
    data = np.random.default_rng(0).random((6, 7, 8)).astype("f4")
    ras = Volume(data, Grid.centred(data.shape, (1, 1, 1), (0, 0, 0)))
    affine = np.array([[0, 0, -1.0, 2.5], [-1.0, 0, 0, 3], [0, 1.0, 0, -3.5], [0, 0, 0, 1]])
    turned = Volume(np.ascontiguousarray(data[::-1, ::-1].transpose(1, 2, 0)), Grid((7, 8, 6), affine))
    np.testing.assert_allclose(turned.grid.to_world([0, 0, 0]), ras.grid.to_world([5, 6, 0]))
    np.testing.assert_array_equal(View(ras).slice(ras.data), View(turned).slice(turned.data))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20, 24), (14, 16, 12)])
def test_pair_panels_show_six_views_of_every_pair(shape, tmp_path):
    grid = Grid.centred(shape, [2] * len(shape), [0] * len(shape))
    image = Volume(np.random.default_rng(0).random(shape).astype("f4"), grid)
    field = DisplacementField(0.3 * torch.randn(1, len(shape), *shape), grid)
    figure = pair_panels([ShownPair("best", "a", "b", image, image, field)] * 2)
    titles = [axis.get_title() for axis in figure.axes[:6]]
    assert titles == ["fixed", "moving", "warped", "fixed − warped", "warped grid", "displacement (mm)"]
    save_figure(figure, tmp_path / "pairs.png")
