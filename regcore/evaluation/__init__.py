"""The evaluator, the same for every method: the measures, and the table rows of a field and its pair."""

from regcore.evaluation.accuracy import correlation, target_registration_error_mm, true_error_mm
from regcore.evaluation.overlap import dice
from regcore.evaluation.regularity import (
    DigitalFolds,
    digital_folds,
    folds,
    mean_jacobian,
    non_diffeomorphic_points,
    non_diffeomorphic_volume,
    sd_log_jacobian,
)
from regcore.evaluation.statistics import PairedComparison, compare_methods, holm, paired_comparison
from regcore.evaluation.surface import SurfaceDistances, surface_distances, surface_distances_per_label

__all__ = [
    "DigitalFolds",
    "PairedComparison",
    "SurfaceDistances",
    "compare_methods",
    "correlation",
    "dice",
    "digital_folds",
    "folds",
    "holm",
    "mean_jacobian",
    "non_diffeomorphic_points",
    "non_diffeomorphic_volume",
    "paired_comparison",
    "sd_log_jacobian",
    "surface_distances",
    "surface_distances_per_label",
    "target_registration_error_mm",
    "true_error_mm",
]
