"""What a user of ``regcore register`` can do about each concern of a verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

POSE = "look at warped.nii.gz; if it lies wrong, try another --affine, or give a matrix by --init"
SMOOTHER = "give a larger weight of smoothness, or look whether the images show the same anatomy"

#: Concern (a measure of :func:`regcore.evaluation.verdict.measure`) → the remedy.
REMEDIES = {
    "wrong_poses_z": POSE,
    "better_nearby": POSE,
    "less_than_start": POSE,
    "largest_scale": "the images may show different parts of the body: " + POSE,
    "smallest_scale": "the images may show different parts of the body: " + POSE,
    "better_mirrored": "compare left and right in a viewer; if one image is mirrored, correct its header",
    "mirrors": "compare left and right in a viewer; if one image is mirrored, correct its header",
    "less_than_affine": SMOOTHER,
    "folds_percent": SMOOTHER,
    "smallest_jacobian": SMOOTHER,
    "largest_jacobian": SMOOTHER,
    "coverage": "trust the result only where the moving image shows something",
}


def explained(verdict: Mapping[str, Any]) -> Iterator[str]:
    """Lines with each reason of a verdict, each remedy once.

    Parameters
    ----------
    verdict : mapping
        From :meth:`regcore.evaluation.verdict.Verdict.as_dict`.

    Yields
    ------
    str

    Examples
    --------
    >>> from regcore.commands.remedies import explained
    >>> list(explained({"reasons": ["half is covered"], "concerns": ["coverage"]}))
    ['  half is covered', '  -> trust the result only where the moving image shows something']
    """
    remedies: dict[str, list[str]] = {}
    for reason, concern in zip(verdict["reasons"], verdict["concerns"], strict=True):
        remedies.setdefault(REMEDIES[concern], []).append(reason)
    for remedy, reasons in remedies.items():
        yield from (f"  {reason}" for reason in reasons)
        yield f"  -> {remedy}"
