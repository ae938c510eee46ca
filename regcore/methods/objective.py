"""How alike two images are: the setting that learned and optimised methods share."""

from collections.abc import Callable, Mapping

from torch import Tensor

from regcore.losses import lncc, mind_ssc, mse, nmi

#: Settings of a method that compares images.
SIMILARITY = {
    "similarity": {
        "description": "mse: mean squared difference; lncc: local correlation; nmi: normalised mutual information, for "
        "images of different contrast; mind: the MIND-SSC descriptor, also for those. Each wants its own λ",
        "enum": ["mse", "lncc", "nmi", "mind"],
    },
    "window": {
        "description": "side of the windows of lncc in voxels",
        "type": "integer",
        "minimum": 2,
    },
    "bins": {
        "description": "bins of each image in the histogram of nmi",
        "type": "integer",
        "minimum": 2,
        "default": 32,
    },
}


def similarity_settings(similarity: str, window: int) -> dict:
    """``SIMILARITY`` with a method's defaults."""
    defaults = {"similarity": similarity, "window": window}
    return {name: rule | ({"default": defaults[name]} if name in defaults else {}) for name, rule in SIMILARITY.items()}


def similarity(settings: Mapping, lncc_variant: str = "ants") -> Callable[[Tensor, Tensor], Tensor]:
    """The function (fixed, warped) → loss that a method's settings ask for; lower is more alike.

    Parameters
    ----------
    lncc_variant : {"ants", "voxelmorph"}
        See :func:`regcore.losses.lncc`.
    """
    name = settings["similarity"]
    if name == "mse":
        return lambda fixed, warped: mse(fixed, warped, settings.get("image_sigma", 1))
    if name == "lncc":
        return lambda fixed, warped: lncc(fixed, warped, settings["window"], lncc_variant)
    if name == "nmi":
        return lambda fixed, warped: nmi(fixed, warped, settings["bins"], fixed_range=(0, 1), warped_range=(0, 1))
    return mind_ssc
