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


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the test pairs, and the number of pairs with a negative correlation of weight and displacement."""
    measured = ["mean_weight", "low_weight", "with_displacement", "with_gradient", "with_displacement_everywhere"]
    names = [name for name in AXES if name in table]
    groups = table.groupby(["entry", "row", *names], dropna=False)
    found = groups[measured].mean()
    found["negative_percent"] = 100 * groups["with_displacement"].agg(lambda values: (values < 0).mean())
    return found.assign(pairs=groups["pair"].nunique()).reset_index().drop(columns="row")


def _means_of(results: Results, names: Sequence[str]) -> pd.DataFrame:
    return means(pd.concat([results.weights(name) for name in names], ignore_index=True))


class Example:
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
    """Fig. 11: weight volumes and fields of one pair, at values of both hyperparameters of a hypernetwork."""
    (name,) = needs.weights
    table, example = results.weights(name), Example(results, name)
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
    return means(table), figure


def beside_field(results: Results, needs: Needs, titles: Mapping[str, str]) -> tuple[pd.DataFrame, Figure]:
    """Fig. 12: displacement, field, local variance and weights of one pair, and the weights overlaid on both."""
    first = Example(results, needs.weights[0])
    _, width, _, height = first.view.extent
    size = (15, (2.4 * height / width + 0.3) * len(needs.weights))
    figure, axes = plt.subplots(len(needs.weights), 6, figsize=size, squeeze=False)
    for place, name in enumerate(needs.weights):
        example = Example(results, name) if place else first
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
    """Variance of the intensities in windows of five voxels a side."""
    data = volume.data.astype(float)
    mean = uniform_filter(data, WINDOW)
    return np.maximum(uniform_filter(data**2, WINDOW) - mean**2, 0)


def against_invariant(
    results: Results, needs: Needs, plain: str, titles: Mapping[str, str]
) -> tuple[pd.DataFrame, Figure]:
    """Fig. 13: the weight volume and field components of one pair, compared with those without weights."""
    (weighed,) = needs.weights
    example = Example(results, weighed)
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
    """Fig. 14 (not in the paper): weights tend to 1 as α′ grows; one network per α′, and the searched one."""
    table = _means_of(results, needs.weights).sort_values("alpha")
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.plot(table["alpha"], table["mean_weight"], "o-", color="black", label="mean over voxels")
    axis.plot(table["alpha"], table["low_weight"], "s--", color="#3182bd", label="5th percentile")
    axis.set(xscale="log", ylim=(0, 1.03), xlabel=AXES["alpha"], ylabel="weight relative to λ_max (test pairs)")
    axis.grid(linewidth=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    return table, figure
