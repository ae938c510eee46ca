"""The measures of a report: what a column of the summary is, and how people see it."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Measure:
    """A metric of the tidy rows as a column of the summary.

    Parameters
    ----------
    metric : str
        Its name in the tidy rows.
    over : {"mean", "median", "max"}
        How the pairs' values are summarised; a metric of labels is first averaged over the labels.
    heading, number, meaning : str
        Heading, number format and explanation for readers.
    best : {"min", "max"}, optional
        Which value is best; None for costs, and where a good registration may be worse than none.
    spread : bool
        Whether the SD over pairs is shown with the mean, as column ``<column>_sd`` of the summary.

    Examples
    --------
    >>> from regcore.reporting.measures import QUALITY
    >>> distance = QUALITY["hd95_mm"]
    >>> distance.heading, distance.best, distance.number.format(3.14159)
    ('HD95 mm', 'min', '3.14')
    """

    metric: str
    over: str
    heading: str
    number: str
    meaning: str
    best: str | None = None
    spread: bool = False


#: Column of the summary → measure of quality.
QUALITY = {
    "hd95_mm": Measure(
        "hd95_mm",
        "mean",
        "HD95 mm",
        "{:.2f}",
        "95th percentile of the distances between the surfaces of a label, mean ± SD as for Dice",
        best="min",
        spread=True,
    ),
    "mean_surface_distance_mm": Measure(
        "mean_surface_distance_mm",
        "mean",
        "Surface distance mm",
        "{:.2f}",
        "mean distance between the surfaces of a label, mean ± SD as for Dice",
        best="min",
        spread=True,
    ),
    "folds_percent": Measure(
        "folds_percent", "mean", "Folds %", "{:.3f}", "voxels of the labelled region with det ∇φ ≤ 0"
    ),
    "ndv_percent": Measure(
        "ndv_percent", "mean", "NDV %", "{:.3f}", "non-diffeomorphic volume, relative to the labelled region"
    ),
    "sd_log_jacobian": Measure("sd_log_jacobian", "mean", "SD log|J|", "{:.2f}", "spread of the local volume change"),
    "correlation": Measure(
        "correlation",
        "mean",
        "Correlation",
        "{:.3f}",
        "between the fixed and the warped image; a good registration across contrasts may lower it",
    ),
    "true_error_mm": Measure(
        "true_error_mm",
        "mean",
        "True error mm",
        "{:.2f}",
        "distance to the known map at random points of the brain, mean ± SD over pairs",
        best="min",
        spread=True,
    ),
    "landmark_error_mm": Measure(
        "landmark_error_mm",
        "mean",
        "Landmark error mm",
        "{:.2f}",
        "distance between mapped and true landmarks, mean ± SD over pairs",
        best="min",
        spread=True,
    ),
}

#: Qualifies the distances, which leave out a label that one of the two maps lacks.
LABELS_LOST = Measure(
    "labels_lost",
    "mean",
    "Labels lost",
    "{:.2f}",
    "number of labels that only one of the two label maps has after warping, mean over pairs; such a label has Dice 0, "
    "and the distances leave it out",
)

#: Column of the summary → measure of cost; medians, because the first pair of a job loads kernels.
COST = {
    "seconds_load": Measure("seconds_load", "median", "Loading s", "{:.2f}", "reading the pair, median over pairs"),
    "seconds": Measure(
        "seconds_compute",
        "median",
        "Seconds per pair",
        "{:.2f}",
        "registration without reading and writing, median over pairs",
    ),
    "seconds_save": Measure("seconds_save", "median", "Saving s", "{:.2f}", "writing the field, median over pairs"),
    "cpu_seconds": Measure(
        "cpu_seconds",
        "median",
        "CPU s",
        "{:.2f}",
        "processor time of all threads, from reading to writing, median over pairs",
    ),
    "peak_memory_mb": Measure(
        "peak_memory_mb", "max", "Peak memory MB", "{:,.0f}", "from reading to writing, maximum over pairs"
    ),
}


def shown_measures(table: pd.DataFrame) -> dict[str, Measure]:
    """The measures besides Dice that people see in a summary, as far as it has them.

    These are the labels lost, if any method lost one, those of ``QUALITY``, and the seconds.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.summaries.summary`.

    Returns
    -------
    dict of str → Measure
        By column of the summary, in the order in which they are shown.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.measures import shown_measures
    >>> table = pd.DataFrame({"dice_mean": [0.8], "labels_lost": [0.0], "seconds": [1.5], "hd95_mm": [2.0]})
    >>> [measure.heading for measure in shown_measures(table).values()]
    ['HD95 mm', 'Seconds per pair']
    """
    measures = QUALITY | {"seconds": COST["seconds"]}
    if "labels_lost" in table and (table["labels_lost"] > 0).any():
        measures = {"labels_lost": LABELS_LOST} | measures
    return {column: measure for column, measure in measures.items() if column in table}
