"""Pictures of registered pairs: images, differences, warped grids and displacements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.reporting.figures import plt


@dataclass(frozen=True, eq=False)
class ShownPair:
    """A pair and the field between its scans, for drawing.

    Parameters
    ----------
    title, fixed_name, moving_name : str
        What is written beside the row of pictures, and below the two images.
    fixed, moving : Volume
        Intensities are 0 to 1.
    field : DisplacementField
        From the fixed to the moving image.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.reporting.pictures import ShownPair
    >>> image = Volume(np.tri(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> pair = ShownPair("best", "a", "b", image, image, DisplacementField.identity(image.grid))
    >>> pair.title, pair.field.warp(pair.moving).data.shape
    ('best', (8, 8))
    """

    title: str
    fixed_name: str
    moving_name: str
    fixed: Volume
    moving: Volume
    field: DisplacementField


def pair_panels(pairs: Sequence[ShownPair]) -> Figure:
    """Rows of fixed, moving, warped, difference, warped grid and displacement (mm).

    In 3-D the coronal slice through the middle of the fixed image's content is shown.

    Parameters
    ----------
    pairs : sequence of ShownPair
        One row each.

    Returns
    -------
    Figure

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.reporting.figures import plt
    >>> from regcore.reporting.pictures import ShownPair, pair_panels
    >>> image = Volume(np.tri(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> figure = pair_panels([ShownPair("best", "a", "b", image, image, DisplacementField.identity(image.grid))])
    >>> [axis.get_title() for axis in figure.axes[:4]]
    ['fixed', 'moving', 'warped', 'fixed − warped']
    >>> plt.close(figure)
    """
    heads = ("fixed", "moving", "warped", "fixed − warped", "warped grid", "displacement (mm)")
    _, width, _, height = View(pairs[0].fixed).extent
    row_inches = 2.1 * height / width + 0.4
    figure, axes = plt.subplots(len(pairs), 6, figsize=(15, row_inches * len(pairs)), squeeze=False)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head)
    for row, shown in zip(axes, pairs, strict=True):
        view = View(shown.fixed)
        unmoved = DisplacementField.identity(shown.fixed.grid).warp(shown.moving)
        fixed = view.slice(shown.fixed.data)
        warped = view.slice(shown.field.warp(shown.moving).data)
        for axis, image in zip(row, (fixed, view.slice(unmoved.data), warped), strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, **view.frame)
        difference = row[3].imshow(fixed - warped, cmap="RdBu", vmin=-0.5, vmax=0.5, **view.frame)
        _scale(row[3], difference)
        moves = shown.field.targets() - DisplacementField.identity(shown.field.grid).targets()
        draw_grid(row[4], view, moves)
        colour = row[5].imshow(view.slice(np.linalg.norm(moves, axis=-1)), cmap="viridis", vmin=0, **view.frame)
        _scale(row[5], colour)
        row[0].set_ylabel(shown.title)
        row[0].set_xlabel(shown.fixed_name, fontsize=8)
        row[1].set_xlabel(shown.moving_name, fontsize=8)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    figure.subplots_adjust(wspace=0.34, hspace=0.16)
    return figure


@dataclass(frozen=True, eq=False)
class ComparedPair:
    """A pair and the fields of several methods, for drawing.

    Parameters
    ----------
    title : str
        What is written beside the row of pictures.
    fixed, moving : Volume
        Intensities are 0 to 1.
    fixed_labels : Volume
        On the grid of the fixed image.
    fields : mapping of str → DisplacementField
        Method → its field from the fixed to the moving image.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.reporting.pictures import ComparedPair
    >>> image = Volume(np.tri(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> labels = Volume(np.tri(8, dtype=np.int16), image.grid)
    >>> pair = ComparedPair("a to b", image, image, labels, {"none": DisplacementField.identity(image.grid)})
    >>> list(pair.fields)
    ['none']
    """

    title: str
    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    fields: Mapping[str, DisplacementField]


def method_panels(pairs: Sequence[ComparedPair]) -> Figure:
    """Rows of the fixed image and the moving image warped by each method, with outlines of the fixed labels.

    In 3-D the coronal slice through the middle of the fixed image's content is shown.

    Parameters
    ----------
    pairs : sequence of ComparedPair
        One row each.

    Returns
    -------
    Figure

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.reporting.figures import plt
    >>> from regcore.reporting.pictures import ComparedPair, method_panels
    >>> image = Volume(np.tri(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> labels = Volume(np.tri(8, dtype=np.int16), image.grid)
    >>> pair = ComparedPair("a to b", image, image, labels, {"none": DisplacementField.identity(image.grid)})
    >>> figure = method_panels([pair])
    >>> [axis.get_title() for axis in figure.axes]
    ['fixed', 'none']
    >>> plt.close(figure)
    """
    columns = 1 + max(len(shown.fields) for shown in pairs)
    _, width, _, height = View(pairs[0].fixed).extent
    figure, axes = plt.subplots(
        len(pairs), columns, figsize=(2.3 * columns, (2.3 * height / width + 0.3) * len(pairs)), squeeze=False
    )
    for row, shown in zip(axes, pairs, strict=True):
        view = View(shown.fixed)
        labels = view.slice(shown.fixed_labels.data)
        outlines = (labels[1:, 1:] != labels[:-1, 1:]) | (labels[1:, 1:] != labels[1:, :-1])
        outlines = np.pad(outlines, ((1, 0), (1, 0)))
        images = {"fixed": shown.fixed}
        images |= {name: field.warp(shown.moving) for name, field in shown.fields.items()}
        for axis, (name, image) in zip(row, images.items(), strict=False):
            axis.imshow(view.slice(image.data), cmap="gray", vmin=0, vmax=1, **view.frame)
            axis.imshow(np.ma.masked_equal(outlines, False), cmap="autumn", alpha=0.45, **view.frame)
            axis.set_title(name, fontsize=9)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(shown.title)
    figure.tight_layout(pad=0.5)
    return figure


def _scale(axis: Axes, image: AxesImage) -> None:
    """A colour bar beside ``axis`` that does not shrink it."""
    bar = axis.figure.colorbar(image, cax=axis.inset_axes((1.03, 0, 0.05, 1)))
    bar.ax.tick_params(labelsize=7)


class View:
    """How to show a volume: closest-to-RAS orientation and, in 3-D, one coronal slice.

    Parameters
    ----------
    volume : Volume
        In 3-D the slice is in the middle of what is brighter than 0.1.

    Attributes
    ----------
    planes : (int, int)
        The world axes across and up the picture.
    extent : (float, float, float, float)
        Left, right, bottom and top of the picture, mm.
    frame : dict
        Keywords for ``imshow``.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.reporting.pictures import View
    >>> volume = Volume(np.ones((4, 5, 6), dtype=np.float32), Grid.centred((4, 5, 6), (1, 1, 2), (0, 0, 0)))
    >>> view = View(volume)
    >>> view.slice(volume.data).shape, [float(edge) for edge in view.extent]
    ((6, 4), [0.0, 4.0, 0.0, 12.0])
    """

    def __init__(self, volume: Volume):
        grid: Grid = volume.grid
        self.ndim = grid.ndim
        affine = np.eye(4)
        affine[: self.ndim, : self.ndim] = grid.affine[:-1, :-1]
        self.orientation = nib.io_orientation(affine)[: self.ndim]
        order = np.argsort(self.orientation[:, 0])
        self.planes = (0, 1) if self.ndim == 2 else (0, 2)
        spacing = grid.spacing[order][list(self.planes)]
        self.where = None
        if self.ndim == 3:
            content = np.argwhere(self._turn(volume.data) > 0.1)[:, 1]
            self.where = int(np.median(content)) if len(content) else volume.data.shape[order[1]] // 2
        height, width = self.slice(volume.data).shape
        self.extent = (0, width * spacing[0], 0, height * spacing[1])
        self.frame = {"origin": "lower", "extent": self.extent, "interpolation": "nearest"}

    def _turn(self, data: np.ndarray) -> np.ndarray:
        return nib.apply_orientation(data, self.orientation)

    def slice(self, data: np.ndarray) -> np.ndarray:
        """The shown plane of an array on the volume's grid, rows upwards."""
        turned = self._turn(data)
        return (turned if self.where is None else turned[:, self.where]).T


def draw_grid(axis: Axes, view: View, moves: np.ndarray) -> None:
    """Draw a regular grid deformed by the field, in the shown plane (mm).

    Parameters
    ----------
    axis : Axes
        Where to draw.
    view : View
        Of the fixed image.
    moves : ndarray, shape (*space, ndim)
        Displacements of its voxels along the world axes, mm.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.reporting.figures import plt
    >>> from regcore.reporting.pictures import View, draw_grid
    >>> volume = Volume(np.ones((4, 5), dtype=np.float32), Grid.centred((4, 5), (2, 2), (0, 0)))
    >>> figure, axis = plt.subplots()
    >>> draw_grid(axis, View(volume), np.zeros((4, 5, 2)))
    >>> len(axis.lines), [float(edge) for edge in axis.get_xlim()]  # five rows, four columns
    (9, [0.0, 8.0])
    >>> plt.close(figure)
    """
    across, up = (view.slice(moves[..., plane]) for plane in view.planes)
    height, width = across.shape
    left, right, bottom, top = view.extent
    x, y = np.meshgrid((np.arange(width) + 0.5) * right / width, (np.arange(height) + 0.5) * top / height)
    step = max(1, round(max(height, width) / 40))
    x, y = x + across, y + up
    for i in range(0, height, step):
        axis.plot(x[i], y[i], color="black", linewidth=0.4)
    for j in range(0, width, step):
        axis.plot(x[:, j], y[:, j], color="black", linewidth=0.4)
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
