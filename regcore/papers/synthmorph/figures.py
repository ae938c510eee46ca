"""The tables and figures of the SynthMorph paper, drawn from the scores of a study's methods and variants."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regcore.experiments import Needs
from regcore.experiments import synthmorph as paper
from regcore.experiments.settings import asked
from regcore.reporting.figures import CURVES, plt
from regcore.reporting.pictures import ComparedPair, method_panels
from regcore.reporting.text import html_table
from regcore.study.results import Results

#: Metrics of the first two figures.
OVERLAP, DISTANCE = "dice", "mean_surface_distance_mm"
MEASURES = {OVERLAP: "Dice", DISTANCE: "mean surface distance (mm)"}
#: The settings on the axes of Fig. 13.
SETTINGS = {
    "b_v": "deformation $b_v$",
    "b_K": "blur $b_K$",
    "width": "width (× 64 features)",
    "b_B": "bias field $b_B$",
    "sigma_gamma": "gamma $\\sigma_\\gamma$",
    "r_v": "velocities at 1:$r_v$",
    "r_B": "bias field at 1:$r_B$",
}


def of_pairs(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """The result of every method on one pair of each pairing of contrasts (Fig. 6 of [1]_).

    The pair has the median overlap, averaged over all methods, so that it favours none of them. It is chosen among the
    pairs on which the fewest methods failed.

    Parameters
    ----------
    results : Results
        Of a study with these methods.
    needs : Needs
        ``fields``: the methods, in the order of the columns.

    Returns
    -------
    DataFrame
        ``contrasts pair method dice mean_surface_distance_mm``, of the pairs that are shown.
    Figure

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.papers.synthmorph.figures import of_pairs
    >>> from regcore.reporting.figures import plt
    >>> image = Volume(np.eye(16, dtype=np.float32), Grid.centred((16, 16), (1, 1), (0, 0)))
    >>> labels = Volume(np.eye(16, dtype=np.int16), image.grid)
    >>> pairs = pd.DataFrame({"pair": ["a--b", "a--c", "a--d"], "fixed": "a", "moving": ["b", "c", "d"]})
    >>> rows = pairs[["pair"]].assign(label=1, value=[0.9, 0.7, 0.8])
    >>> rows = pd.concat([rows.assign(metric=metric) for metric in ("dice", "mean_surface_distance_mm")])
    >>> results = SimpleNamespace(
    ...     scores=lambda name: rows,
    ...     plan=SimpleNamespace(pairs_of=lambda split: pairs.assign(contrasts="T1w to T2w")),
    ...     scans_of=lambda pair: pair.split("--"),
    ...     field=lambda name, pair: DisplacementField.identity(image.grid),
    ...     normalised=lambda scan: image,
    ...     label_map=lambda scan: labels,
    ... )
    >>> table, figure = of_pairs(results, Needs(fields=["affine", "syn"]))
    >>> table[["contrasts", "pair", "method", "dice"]].reset_index(drop=True)
        contrasts  pair  method  dice
    0  T1w to T2w  a--d  affine   0.8
    1  T1w to T2w  a--d     syn   0.8
    >>> plt.close(figure)
    """
    table = _of_pairs(results, needs.fields).dropna(subset=OVERLAP)
    chosen, shown = [], []
    for contrasts, rows in table.groupby("contrasts", sort=False):
        by_pair = rows.groupby("pair")[OVERLAP]
        means = by_pair.mean()[by_pair.count() == by_pair.count().max()].sort_values()
        pair = means.index[len(means) // 2]
        chosen.append(rows[rows["pair"] == pair])
        shown.append(_compared(results, pair, str(contrasts), chosen[-1].set_index("method")[OVERLAP]))
    return pd.concat(chosen)[["contrasts", "pair", "method", *MEASURES]], method_panels(shown)


def _compared(results: Results, pair: str, title: str, overlaps: pd.Series) -> ComparedPair:
    fixed, moving = results.scans_of(pair)
    fields = {f"{name}  {overlap:.3f}": results.field(str(name), pair) for name, overlap in overlaps.items()}
    return ComparedPair(title, results.normalised(fixed), results.normalised(moving), results.label_map(fixed), fields)


def by_contrast(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Overlap and surface distance over pairs, as boxes, one group per pairing of contrasts (Fig. 7 and 8 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these methods.
    needs : Needs
        ``scores``: the methods, in the order of the boxes.

    Returns
    -------
    DataFrame
        ``contrasts method``, then ``_mean _std _count`` over pairs of ``dice mean_surface_distance_mm``.
    Figure

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.synthmorph.figures import by_contrast
    >>> from regcore.reporting.figures import plt
    >>> pairs = pd.DataFrame({"pair": ["a--b", "a--c"], "fixed": "a", "moving": ["b", "c"]})
    >>> pairs["contrasts"] = ["T1w to T1w", "T1w to T2w"]
    >>> rows = pairs[["pair"]].assign(dice=[0.8, 0.7], mean_surface_distance_mm=[1, 1.5])
    >>> rows = rows.melt("pair", var_name="metric")
    >>> results = SimpleNamespace(scores=lambda name: rows, plan=SimpleNamespace(pairs_of=lambda split: pairs))
    >>> table, figure = by_contrast(results, Needs(scores=["syn"]))
    >>> table[["contrasts", "method", "dice_mean", "dice_count"]]
        contrasts method  dice_mean  dice_count
    0  T1w to T1w    syn        0.8           1
    1  T1w to T2w    syn        0.7           1
    >>> plt.close(figure)
    """
    names = needs.scores
    table = _of_pairs(results, names)
    contrasts = list(dict.fromkeys(table["contrasts"]))
    figure, axes = plt.subplots(2, 1, figsize=(1.5 + 0.28 * len(names) * len(contrasts), 8), sharex=True)
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        _boxes(axis, table, names, contrasts, measure)
        axis.set_ylabel(title)
    axes[1].set_xticks(range(len(contrasts)), [name.replace(" to ", "\nto ") for name in contrasts], fontsize=8)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    figure.tight_layout()
    numbers = table.groupby(["contrasts", "method"], sort=False)[list(MEASURES)].agg(["mean", "std", "count"])
    numbers.columns = ["_".join(levels) for levels in numbers.columns]
    return numbers.reset_index(), figure


def along_series(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Overlap against the flip angle or the inversion time of the moving image (Fig. 11 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these methods, where contrasts of moving scans belong to a series.
    needs : Needs
        ``scores``: the methods.

    Returns
    -------
    DataFrame
        ``series method number``, then Dice over pairs: ``mean std count``.
    Figure

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.synthmorph.figures import along_series
    >>> from regcore.reporting.figures import plt
    >>> moving = ["FLASH-2", "FLASH-40", "T1w"]
    >>> pairs = pd.DataFrame({"pair": moving, "fixed": "a", "moving": moving, "contrasts": moving})
    >>> rows = pd.DataFrame({"pair": moving, "metric": "dice", "value": [0.5, 0.75, 0.8]})
    >>> scans = pd.DataFrame({"contrast": moving}, index=moving)
    >>> plan = SimpleNamespace(pairs_of=lambda split: pairs, cohort=SimpleNamespace(table=scans))
    >>> table, figure = along_series(SimpleNamespace(scores=lambda name: rows, plan=plan), Needs(scores=["syn"]))
    >>> table[["series", "method", "number", "mean"]]
      series method  number  mean
    0  FLASH    syn     2.0  0.50
    1  FLASH    syn    40.0  0.75
    >>> plt.close(figure)
    """
    names = needs.scores
    table = _of_pairs(results, names)
    contrast = results.plan.cohort.table["contrast"]
    table = table.assign(**paper.series_and_number(contrast[table["moving"]])).dropna(subset="series")
    means = (
        table.groupby(["series", "method", "number"], sort=False)[OVERLAP].agg(["mean", "std", "count"]).reset_index()
    )
    shown = list(dict.fromkeys(means["series"]))
    figure, axes = plt.subplots(1, len(shown), figsize=(5.2 * len(shown), 4), squeeze=False, sharey=True)
    for axis, series in zip(axes[0], shown, strict=True):
        for place, name in enumerate(names):
            part = means[(means["series"] == series) & (means["method"] == name)].sort_values("number")
            _curve(axis, part["number"], part["mean"], place, name)
        axis.set(xlabel=f"{paper.SERIES[series]} of the moving image", title=series)
    axes[0, 0].set_ylabel("Dice")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    figure.tight_layout()
    return means, figure


def by_layer(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Variation of every convolution's output with the contrast of the moving image (Fig. 12 of [1]_).

    Upper row: as in the paper. Lower row: relative to the features, because their scale differs between networks.

    Parameters
    ----------
    results : Results
        Of a study with these networks' features.
    needs : Needs
        ``features``: the networks.

    Returns
    -------
    DataFrame
        As the stage ``features`` writes it: ``method series layer rmsd relative``, among others.
    Figure

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.synthmorph.figures import by_layer
    >>> from regcore.reporting.figures import plt
    >>> rows = pd.DataFrame({"series": "FLASH", "layer": [1, 2], "rmsd": [0.4, 0.1], "relative": [0.8, 0.2]})
    >>> results = SimpleNamespace(features=lambda name: rows.assign(method=name))
    >>> table, figure = by_layer(results, Needs(features=["sm-shapes"]))
    >>> [axis.get_ylabel() for axis in figure.axes], figure.axes[1].lines[0].get_ydata().tolist()
    (['RMSD', 'RMSD / RMS'], [0.8, 0.2])
    >>> plt.close(figure)
    """
    names = needs.features
    table = pd.concat([results.features(name) for name in names], ignore_index=True)
    shown = list(dict.fromkeys(table["series"]))
    figure, axes = plt.subplots(2, len(shown), figsize=(5.2 * len(shown), 7), squeeze=False, sharex=True)
    for line, (measure, title) in zip(axes, {"rmsd": "RMSD", "relative": "RMSD / RMS"}.items(), strict=True):
        for axis, series in zip(line, shown, strict=True):
            for place, name in enumerate(names):
                part = table[(table["series"] == series) & (table["method"] == name)]
                _curve(axis, part["layer"], part[measure], place, name)
            axis.set_title(series)
        line[0].set_ylabel(title)
    for axis in axes[1]:
        axis.set_xlabel("convolution")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    figure.tight_layout()
    return table, figure


def by_setting(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Overlap against each of the generator's settings (Fig. 13 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with a network for each value of each setting.
    needs : Needs
        Not used: the study's settings of the experiments say which networks there are.

    Returns
    -------
    DataFrame
        ``kind setting value pairs``, then mean and standard error (``_se``) over pairs of ``dice folds_percent
        mean_jacobian sd_log_jacobian``. The mean Jacobian is relative to that of the affine alignment, if the study has
        it.
    Figure

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.synthmorph.figures import by_setting
    >>> from regcore.reporting.figures import plt
    >>> def scores(name):
    ...     values = {"dice": 0.8 if name.endswith("-1") else 0.6, "folds_percent": 0.1}
    ...     values |= {"mean_jacobian": 1, "sd_log_jacobian": 0.2}
    ...     return pd.DataFrame([values | {"pair": pair} for pair in "pq"]).melt("pair", var_name="metric")
    >>> pairs = pd.DataFrame({"pair": ["p", "q"], "fixed": "a", "moving": "b", "contrasts": "T1w to T1w"})
    >>> chosen = {"kinds": ["shapes"], "sweeps": {"b_K": [0.5, 1]}}
    >>> results = SimpleNamespace(
    ...     scores=scores,
    ...     plan=SimpleNamespace(pairs_of=lambda split: pairs, methods=["syn"]),
    ...     experiments=ExperimentSettings.read({"synthmorph": chosen}, "experiments"),
    ... )
    >>> table, figure = by_setting(results, Needs())
    >>> table[["kind", "setting", "value", "dice", "dice_se"]]
            kind setting  value  dice  dice_se
    0  sm-shapes     b_K    0.5   0.6      0.0
    1  sm-shapes     b_K    1.0   0.8      0.0
    >>> plt.close(figure)
    """
    chosen = asked(results.experiments.synthmorph)
    table = _swept(results, chosen.kinds, chosen.sweeps)
    columns = min(3, len(chosen.sweeps))
    lines = -(-len(chosen.sweeps) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.4 * lines), squeeze=False, sharey=True)
    for axis, setting in zip(axes.flat, chosen.sweeps, strict=False):
        _lines(axis, table[table["setting"] == setting], OVERLAP)
        axis.set_xlabel(SETTINGS[setting])
    for axis in axes.flat[len(chosen.sweeps) :]:
        axis.remove()
    for line in axes:
        line[0].set_ylabel("Dice (mean ± SE over pairs)")
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    return table, figure


def by_lambda(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Overlap, folds and the Jacobian against λ (Fig. 14 of [1]_); the mean Jacobian excludes the affine alignment.

    Parameters
    ----------
    results : Results
        Of a study with a network for each λ.
    needs : Needs
        Not used: the study's settings of the experiments say which networks there are.

    Returns
    -------
    DataFrame
        As from :func:`by_setting`.
    Figure

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.synthmorph.figures import by_lambda
    >>> from regcore.reporting.figures import plt
    >>> def scores(name):  # the affine alignment halves the volume
    ...     values = {"dice": 0.8, "folds_percent": 0.1, "sd_log_jacobian": 0.2}
    ...     return pd.DataFrame([values | {"pair": "p", "mean_jacobian": 0.5}]).melt("pair", var_name="metric")
    >>> pairs = pd.DataFrame({"pair": ["p"], "fixed": "a", "moving": "b", "contrasts": "T1w to T1w"})
    >>> results = SimpleNamespace(
    ...     scores=scores,
    ...     plan=SimpleNamespace(pairs_of=lambda split: pairs, methods=["affine"]),
    ...     experiments=ExperimentSettings.read({"synthmorph": {"kinds": ["shapes"], "lambda": [0, 1]}}, "experiments"),
    ... )
    >>> table, figure = by_lambda(results, Needs())
    >>> table[["kind", "value", "folds_percent", "mean_jacobian"]]
            kind  value  folds_percent  mean_jacobian
    0  sm-shapes      0            0.1            1.0
    1  sm-shapes      1            0.1            1.0
    >>> plt.close(figure)
    """
    chosen = asked(results.experiments.synthmorph)
    table = _swept(results, chosen.kinds, {"lambda": chosen.lambda_})
    panels = {
        OVERLAP: "Dice",
        "folds_percent": "folded voxels (%)",
        "mean_jacobian": "mean |J|",
        "sd_log_jacobian": "SD of log |J|",
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.6))
    for axis, (measure, title) in zip(axes, panels.items(), strict=True):
        _lines(axis, table, measure)
        axis.set(xlabel="λ", ylabel=title, xscale="symlog")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return table, figure


def change_of_distance(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Reduction of each pair's surface distance by registration, and the number of pairs with one (Table III of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these methods.
    needs : Needs
        ``scores``: the methods. Without the affine alignment among them there is nothing to compare with.

    Returns
    -------
    DataFrame
        ``method``, then over pairs ``reduction_percent`` (mean), its ``standard_error``, ``improved_percent`` of pairs
        and the number of ``pairs``.
    str
        HTML.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.synthmorph.figures import change_of_distance
    >>> distance = {"affine": [2.0, 4.0], "syn": [1.0, 5.0]}
    >>> def scores(name):
    ...     return pd.DataFrame({"pair": ["p", "q"], "metric": "mean_surface_distance_mm", "value": distance[name]})
    >>> pairs = pd.DataFrame({"pair": ["p", "q"], "fixed": "a", "moving": "b", "contrasts": "T1w to T1w"})
    >>> results = SimpleNamespace(scores=scores, plan=SimpleNamespace(pairs_of=lambda split: pairs))
    >>> table, html = change_of_distance(results, Needs(scores=list(distance)))
    >>> table
      method  reduction_percent  standard_error  improved_percent  pairs
    0    syn               12.5            37.5              50.0      2
    """
    names = needs.scores
    table = _of_pairs(results, names)
    if paper.START not in names:
        return pd.DataFrame(columns=["method"]), f"<p>Needs the method '{paper.START}' to compare with.</p>"
    before = table[table["method"] == paper.START].set_index("pair")[DISTANCE]
    rows = []
    for name in names:
        if name != paper.START:
            after = table[table["method"] == name].set_index("pair")[DISTANCE]
            change = (100 * (1 - after / before.reindex(after.index))).dropna()
            sem = change.std(ddof=1) / np.sqrt(len(change))
            rows.append({"method": name, "reduction_percent": change.mean(), "standard_error": sem})
            rows[-1] |= {"improved_percent": 100 * (change > 0).mean(), "pairs": len(change)}
    found = pd.DataFrame(rows)
    shown = {
        "Method": found["method"],
        f"Reduction of surface distance from {paper.START}, %": [
            f"{mean:.1f} ± {sem:.1f}"
            for mean, sem in zip(found["reduction_percent"], found["standard_error"], strict=True)
        ],
        "Pairs improved, %": found["improved_percent"].map("{:.0f}".format),
        "Pairs": found["pairs"],
    }
    return found, html_table(shown)


def _of_pairs(results: Results, names: Sequence[str]) -> pd.DataFrame:
    """Mean over labels of each pair: ``method pair fixed moving contrasts`` and one column per metric."""
    pairs = results.plan.pairs_of("test").set_index("pair")[["fixed", "moving", "contrasts"]]
    frames = []
    for name in names:
        scores = results.scores(name)
        means = scores.groupby(["pair", "metric"])["value"].mean().unstack("metric")
        frames.append(means.join(pairs, how="inner").assign(method=name).reset_index())
    return pd.concat(frames, ignore_index=True)


def _swept(results: Results, kinds: Sequence[str], sweeps: dict) -> pd.DataFrame:
    """Means and standard errors over pairs, for the networks of sweeps."""
    rows, affine = [], None
    if paper.START in results.plan.methods:
        affine = _of_pairs(results, [paper.START]).set_index("pair")["mean_jacobian"]
    for kind in kinds:
        for setting, values in sweeps.items():
            for value in values:
                scores = _of_pairs(results, [paper.swept(kind, setting, value)])
                if affine is not None:
                    scores["mean_jacobian"] /= scores["pair"].map(affine)
                row = {"kind": paper.KINDS[kind], "setting": setting, "value": value, "pairs": len(scores)}
                for measure in (OVERLAP, "folds_percent", "mean_jacobian", "sd_log_jacobian"):
                    row[measure] = scores[measure].mean()
                    row[f"{measure}_se"] = scores[measure].std(ddof=1) / np.sqrt(len(scores))
                rows.append(row)
    return pd.DataFrame(rows)


def _lines(axis: Axes, table: pd.DataFrame, measure: str) -> None:
    for place, (kind, part) in enumerate(table.groupby("kind", sort=False)):
        part = part.sort_values("value")
        marker, line, colour = CURVES[place % len(CURVES)]
        style: dict[str, Any] = {"fmt": marker + line, "color": colour, "capsize": 3, "markersize": 4}
        axis.errorbar(part["value"], part[measure], part[f"{measure}_se"], label=kind, **style)
    axis.grid(linewidth=0.3)


def _curve(axis: Axes, x: pd.Series, y: pd.Series, place: int, name: str) -> None:
    """One of many curves: from the fifth on with hollow markers."""
    marker, line, colour = CURVES[place % len(CURVES)]
    face = colour if place < len(CURVES) else "white"
    axis.plot(x, y, line, marker=marker, color=colour, markerfacecolor=face, markersize=4, label=name)
    axis.grid(linewidth=0.3)


def _boxes(axis: Axes, table: pd.DataFrame, names: Sequence[str], contrasts: Sequence[str], measure: str) -> None:
    colours = plt.get_cmap("tab20")(np.arange(len(names)) % 20)
    width = 0.8 / len(names)
    for place, (name, colour) in enumerate(zip(names, colours, strict=True)):
        own = table[table["method"] == name]
        values = [own.loc[own["contrasts"] == c, measure].dropna() for c in contrasts]
        at = [n + (place - (len(names) - 1) / 2) * width for n in range(len(contrasts))]
        box = axis.boxplot(values, positions=at, widths=0.8 * width, patch_artist=True, showfliers=False)
        for patch in box["boxes"]:
            patch.set(facecolor=colour, linewidth=0.6)
        for line in box["medians"]:
            line.set(color="black")
        box["boxes"][0].set_label(name)
    axis.grid(axis="y", linewidth=0.3)
