"""Figures 11 to 14: weight volumes and their fields."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter

from regcore.experiments import Needs
from regcore.images.volume import Volume
from regcore.reporting.figures import AXES, plt
from regcore.reporting.pictures import View, draw_grid
from regcore.study.results import Results

#: Edge of the windows for local variance, in voxels.
WINDOW = 5
#: Weights are relative to their scale. With the Gaussian prior they can exceed it; those have the colour of 1.
WEIGHTS = {"cmap": "jet", "vmin": 0, "vmax": 1}


def _means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the test pairs, and the number of pairs with a negative correlation of weight and displacement."""
    measured = ["mean_weight", "low_weight", "with_displacement", "with_gradient", "with_displacement_everywhere"]
    names = [name for name in AXES if name in table]
    groups = table.groupby(["entry", "row", *names], dropna=False)
    found = groups[measured].mean()
    found["negative_percent"] = 100 * groups["with_displacement"].agg(lambda values: (values < 0).mean())
    return found.assign(pairs=groups["pair"].nunique()).reset_index().drop(columns="row")


def _means_of(results: Results, names: Sequence[str]) -> pd.DataFrame:
    return _means(pd.concat([results.weights(name) for name in names], ignore_index=True))


class _Example:
    """One entry's volumes for the pair that is shown."""

    def __init__(self, results: Results, name: str):
        self.tensors, self.pair = results.weight_volumes(name)
        fixed, _ = results.scans_of(self.pair)
        self.fixed = results.prepared(fixed)
        self.view = View(self.fixed)

    def slice(self, row: int, what: str) -> np.ndarray:
        return self.view.slice(self.tensors[f"{row}.{what}"].numpy())

    def moves(self, row: int) -> np.ndarray:
        """Displacements (*space, D), mm in world axes."""
        voxels = np.moveaxis(self.tensors[f"{row}.displacement"].numpy(), 0, -1)
        return voxels @ self.fixed.grid.affine[:-1, :-1].T

    def size(self, row: int) -> np.ndarray:
        """|u| in the shown plane, mm."""
        return self.view.slice(np.linalg.norm(self.moves(row), axis=-1))


def over_two(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Weight volumes and fields of one pair, at values of both hyperparameters of a hypernetwork (Fig. 11 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with the weight volumes.
    needs : Needs
        ``weights``: the hypernetwork, one.

    Returns
    -------
    DataFrame
        ``entry``, both hyperparameters, then means over pairs: ``mean_weight low_weight`` (5th percentile over voxels),
        correlations of the weight ``with_displacement with_gradient with_displacement_everywhere``,
        ``negative_percent`` of pairs where the first of them is negative, and the number of ``pairs``.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> import pandas as pd
    >>> import torch
    >>> from regcore.experiments import Needs
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.papers.spr.weights import over_two
    >>> from regcore.reporting.figures import plt
    >>> table = pd.DataFrame({"row": range(4), "lambda_max": [1, 1, 2, 2], "alpha": [0.1, 0.2, 0.1, 0.2]})
    >>> table = table.assign(entry="hyper", pair="a--b", mean_weight=0.75, low_weight=0.5, with_displacement=-0.4)
    >>> table = table.assign(with_gradient=-0.1, with_displacement_everywhere=-0.3)
    >>> tensors = {f"{row}.weights": torch.rand(16, 16) for row in range(4)}
    >>> tensors |= {f"{row}.displacement": torch.zeros(2, 16, 16) for row in range(4)}
    >>> image = Volume(np.ones((16, 16), np.float32), Grid.centred((16, 16), (1, 1), (0, 0)))
    >>> results = SimpleNamespace(
    ...     weights=lambda name: table,
    ...     weight_volumes=lambda name: (tensors, "a--b"),
    ...     scans_of=lambda pair: pair.split("--"),
    ...     prepared=lambda scan: image,
    ... )
    >>> found, figure = over_two(results, Needs(weights=["hyper"]))
    >>> found[["lambda_max", "alpha", "mean_weight", "negative_percent", "pairs"]].head(2)
       lambda_max  alpha  mean_weight  negative_percent  pairs
    0           1    0.1         0.75             100.0      1
    1           1    0.2         0.75             100.0      1
    >>> plt.close(figure)
    """
    (name,) = needs.weights
    table, example = results.weights(name), _Example(results, name)
    settings = table.drop_duplicates("row")
    down, across = [key for key in AXES if key in settings]
    lines = {key: sorted(settings[key].unique()) for key in (down, across)}
    _, width, _, height = example.view.extent
    size = (2 * 1.7 * len(lines[across]) + 1, 1.7 * height / width * len(lines[down]) + 1)
    figure, axes = plt.subplots(len(lines[down]), 2 * len(lines[across]), figsize=size, squeeze=False)
    for _, values in settings.iterrows():
        row = int(values["row"])
        at = lines[down].index(values[down]), lines[across].index(values[across])
        left, right = axes[at[0], at[1]], axes[at[0], at[1] + len(lines[across])]
        shown = left.imshow(example.slice(row, "weights"), **WEIGHTS, **example.view.frame)
        draw_grid(right, example.view, example.moves(row))
        for axis in (left, right):
            axis.set(xticks=[], yticks=[])
            if at[0] == 0:
                axis.set_title(f"{AXES[across]} = {values[across]:.3g}", fontsize=9)
        if at[1] == 0:
            left.set_ylabel(f"{AXES[down]} = {values[down]:.3g}", fontsize=9)
    figure.tight_layout(pad=0.4)
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("weight relative to λ_max")
    return _means(table), figure


def beside_field(results: Results, needs: Needs, titles: Mapping[str, str]) -> tuple[pd.DataFrame, Figure]:
    """Displacement, field, local variance and weights of one pair, and the weights overlaid on both (Fig. 12 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with the weight volumes.
    needs : Needs
        ``weights``: the networks, one for each row.
    titles : mapping of str → str
        Network → its name in the paper.

    Returns
    -------
    DataFrame
        As from :func:`over_two`.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> import pandas as pd
    >>> import torch
    >>> from regcore.experiments import Needs
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.papers.spr.weights import beside_field
    >>> from regcore.reporting.figures import plt
    >>> table = pd.DataFrame({"entry": "spr", "row": 0, "pair": ["a--b", "a--c"], "mean_weight": [0.5, 0.75]})
    >>> table = table.assign(low_weight=0.25, with_displacement=[-0.4, 0.1], with_gradient=-0.1, lambda_max=2)
    >>> table = table.assign(with_displacement_everywhere=-0.3)
    >>> tensors = {"0.weights": torch.rand(16, 16), "0.displacement": torch.ones(2, 16, 16)}
    >>> image = Volume(np.ones((16, 16), np.float32), Grid.centred((16, 16), (1, 1), (0, 0)))
    >>> results = SimpleNamespace(
    ...     weights=lambda name: table,
    ...     weight_volumes=lambda name: (tensors, "a--b"),
    ...     scans_of=lambda pair: pair.split("--"),
    ...     prepared=lambda scan: image,
    ... )
    >>> found, figure = beside_field(results, Needs(weights=["spr"]), titles={"spr": "TM-SPR"})
    >>> found[["mean_weight", "with_displacement", "negative_percent", "pairs"]]
       mean_weight  with_displacement  negative_percent  pairs
    0        0.625              -0.15              50.0      2
    >>> plt.close(figure)
    """
    first = _Example(results, needs.weights[0])
    _, width, _, height = first.view.extent
    size = (15, (2.4 * height / width + 0.3) * len(needs.weights))
    figure, axes = plt.subplots(len(needs.weights), 6, figsize=size, squeeze=False)
    for place, name in enumerate(needs.weights):
        example = _Example(results, name) if place else first
        row, weights = axes[place], example.slice(0, "weights")
        frame = example.view.frame
        moved = row[0].imshow(example.size(0), cmap="viridis", vmin=0, **frame)
        draw_grid(row[1], example.view, example.moves(0))
        variance = example.view.slice(local_variance(example.fixed))
        row[2].imshow(variance, cmap="magma", **frame)
        shown = row[3].imshow(weights, **WEIGHTS, **frame)
        row[4].imshow(weights, **WEIGHTS, **frame)
        draw_grid(row[4], example.view, example.moves(0))
        row[5].imshow(variance, cmap="gray", **frame)
        row[5].imshow(weights, alpha=0.45, **WEIGHTS | {"cmap": "jet_r"}, **frame)
        heads = (
            "displacement (mm)",
            "field",
            "local variance",
            "weight",
            "weight and field",
            "weight, variance",
        )
        for axis, head in zip(row, heads, strict=True):
            axis.set(xticks=[], yticks=[])
            if place == 0:
                axis.set_title(head, fontsize=9)
        row[0].set_ylabel(titles[name], fontsize=9)
        figure.colorbar(moved, ax=row[0], shrink=0.7)
        figure.colorbar(shown, ax=row[3], shrink=0.7)
    figure.tight_layout(pad=0.5)
    return _means_of(results, needs.weights), figure


def local_variance(volume: Volume) -> np.ndarray:
    """Variance of the intensities in windows of five voxels a side.

    Parameters
    ----------
    volume : Volume
        The image.

    Returns
    -------
    ndarray of float, shape of the volume

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.papers.spr.weights import local_variance
    >>> edge = np.repeat([0.0, 1.0], 8)[:, None] * np.ones((16, 16))
    >>> found = local_variance(Volume(edge, Grid.centred((16, 16), (1, 1), (0, 0))))
    >>> found[:, 8].round(2).tolist()  # only near the edge
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.16, 0.24, 0.24, 0.16, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    data = volume.data.astype(float)
    mean = uniform_filter(data, WINDOW)
    return np.maximum(uniform_filter(data**2, WINDOW) - mean**2, 0)


def against_invariant(
    results: Results, needs: Needs, plain: str, titles: Mapping[str, str]
) -> tuple[pd.DataFrame, Figure]:
    """Weights and field components of one pair, compared with those without weights (Fig. 13 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with the weight volumes and both fields.
    needs : Needs
        ``weights``: the network with weights, one.
    plain : str
        The network without.
    titles : mapping of str → str
        Network → its name in the paper.

    Returns
    -------
    DataFrame
        ``entry pair mean_mm steepest_mm_per_voxel``: the mean length of the displacements, and the largest difference
        of a component between neighbours.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> import torch
    >>> from regcore.experiments import Needs
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.papers.spr.weights import against_invariant
    >>> from regcore.reporting.figures import plt
    >>> grid = Grid.centred((16, 16), spacing=(2, 2), centre=(0, 0))
    >>> image = Volume(np.ones((16, 16), np.float32), grid)
    >>> shifts = {"tm-spr-beta": torch.zeros(1, 2, 16, 16), "transmorph": torch.zeros(1, 2, 16, 16)}
    >>> shifts["transmorph"][:, 0, 8:] = 1  # voxels
    >>> results = SimpleNamespace(
    ...     weight_volumes=lambda name: ({"0.weights": torch.rand(16, 16)}, "a--b"),
    ...     scans_of=lambda pair: pair.split("--"),
    ...     image=lambda scan: image,
    ...     prepared=lambda scan: image,
    ...     field=lambda name, pair: DisplacementField(shifts[name], grid),
    ... )
    >>> needs, titles = Needs(weights=["tm-spr-beta"]), {"tm-spr-beta": "TM-SPR", "transmorph": "TransMorph"}
    >>> table, figure = against_invariant(results, needs, "transmorph", titles)
    >>> table
             entry  pair  mean_mm  steepest_mm_per_voxel
    0  tm-spr-beta  a--b      0.0                    0.0
    1   transmorph  a--b      1.0                    2.0
    >>> plt.close(figure)
    """
    (weighed,) = needs.weights
    example = _Example(results, weighed)
    fixed, moving = (results.image(scan) for scan in results.scans_of(example.pair))
    view = View(fixed)
    fields = {name: results.field(name, example.pair) for name in (weighed, plain)}
    parts = {name: field.targets() - field.identity(field.grid).targets() for name, field in fields.items()}
    limit = max(float(np.abs(part).max()) for part in parts.values())
    components = [f"displacement, {axis} (mm)" for axis in "xyz"[: fixed.grid.ndim]]
    heads = ["weight", *components, "field", "warped"]
    _, width, _, height = view.extent
    figure, axes = plt.subplots(2, len(heads), figsize=(2.5 * len(heads), 2 * (2.4 * height / width) + 0.6))
    axes[0, 0].imshow(example.slice(0, "weights"), **WEIGHTS, **example.view.frame)
    axes[1, 0].text(0.5, 0.5, "the same\neverywhere", ha="center", va="center", transform=axes[1, 0].transAxes)
    rows = []
    for line, (name, part) in zip(axes, parts.items(), strict=True):
        for axis, number in zip(line[1:], range(len(components)), strict=False):
            drawn = axis.imshow(view.slice(part[..., number]), cmap="RdBu", vmin=-limit, vmax=limit, **view.frame)
        draw_grid(line[-2], view, part)
        line[-1].imshow(view.slice(fields[name].warp(moving).data), cmap="gray", **view.frame)
        line[0].set_ylabel(titles[name], fontsize=9)
        steepest = max(float(np.abs(np.diff(part, axis=axis)).max()) for axis in range(fixed.grid.ndim))
        size = np.linalg.norm(part, axis=-1)
        rows.append({"entry": name, "pair": example.pair, "mean_mm": size.mean(), "steepest_mm_per_voxel": steepest})
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.5)
    figure.colorbar(drawn, ax=axes[:, 1 : 1 + len(components)], shrink=0.6, label="mm")
    return pd.DataFrame(rows), figure


def by_alpha(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Weights tend to 1 as α′ grows: one network for each α′, and the searched one; the paper has no such figure.

    Parameters
    ----------
    results : Results
        Of a study with the measures of the weight volumes.
    needs : Needs
        ``weights``: the networks.

    Returns
    -------
    DataFrame
        As from :func:`over_two`, in the order of α′.
    Figure

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.weights import by_alpha
    >>> from regcore.reporting.figures import plt
    >>> alphas, measured = {"tm-spr-alpha-10": 10, "tm-spr-alpha-0.1": 0.1}, ["with_displacement", "with_gradient"]
    >>> def weights(name):
    ...     row = {"entry": name, "row": 0, "pair": "a--b", "alpha": alphas[name], "low_weight": 0.5}
    ...     row["mean_weight"] = 1 - 0.02 / alphas[name]
    ...     return pd.DataFrame([row | dict.fromkeys([*measured, "with_displacement_everywhere"], -0.2)])
    >>> table, figure = by_alpha(SimpleNamespace(weights=weights), Needs(weights=list(alphas)))
    >>> table[["entry", "alpha", "mean_weight"]].round(2)
                  entry  alpha  mean_weight
    0  tm-spr-alpha-0.1    0.1          0.8
    1   tm-spr-alpha-10   10.0          1.0
    >>> plt.close(figure)
    """
    table = _means_of(results, needs.weights).sort_values("alpha")
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.plot(table["alpha"], table["mean_weight"], "o-", color="black", label="mean over voxels")
    axis.plot(table["alpha"], table["low_weight"], "s--", color="#3182bd", label="5th percentile")
    axis.set(xscale="log", ylim=(0, 1.03), xlabel=AXES["alpha"], ylabel="weight relative to λ_max (test pairs)")
    axis.grid(linewidth=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    return table, figure
