"""HyperMorph (Hoopes et al., IPMI 2021): one network for all values of the loss's hyperparameters.

A hypernetwork writes the weights of VoxelMorph's network from the hyperparameters Λ, and at every training step
each pair meets its own Λ, in the network and in the loss (Eq. 1 to 3).  Afterwards a value is chosen without
training anything: :mod:`regcore.tuning.amortised`.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from regcore.errors import InputError
from regcore.losses import lncc
from regcore.methods.hypernetworked import HYPERNETWORK, RANGES, Hypernetworked
from regcore.methods.voxelmorph import VoxelMorph


class HyperMorph(Hypernetworked):
    """VoxelMorph with a hypernetwork over λ, and over the window of lncc or γ.

    The settings of these names hold the value to register with; null where none is chosen yet.
    """

    limits: ClassVar = {"lambda": (0, 1), "gamma": (0, 1), "window": (3, 99)}
    ranges_key: ClassVar = "prior"
    properties: ClassVar[dict] = {
        **VoxelMorph.properties,
        "preset": {
            "description": "where the hypernetwork's defaults come from: paper (4 layers of 64 units, tanh; all "
            "weights are generated), code (6 of 128, the flow's convolution is trained as usual, end points drawn more "
            "often) or null, regcore's own",
            "enum": ["paper", "code", None],
            "default": None,
        },
        "architecture": VoxelMorph.properties["architecture"] | {"default": "half"},
        "passes": VoxelMorph.properties["passes"] | {"enum": [1]},
        "weighting": VoxelMorph.properties["weighting"] | {"enum": ["convex"], "default": "convex"},
        "image_sigma": VoxelMorph.properties["image_sigma"] | {"default": 0.05},
        "lambda": {
            "description": "λ of Eq. 2 to register with; null: the one that is best on the validation pairs",
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "default": None,
        },
        "window": VoxelMorph.properties["window"]
        | {
            "description": "side of the windows of lncc in voxels; as a hyperparameter any number, which stands for "
            "the losses of the odd sizes around it, interpolated linearly; null: the best one on the validation pairs",
            "type": ["number", "null"],
        },
        "gamma": {
            "description": "γ of Eq. 3, the share of the overlap of labels; as a hyperparameter the value to register "
            "with, null: the best one on the validation pairs",
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "default": 0,
        },
        "prior": RANGES
        | {
            "description": "the hyperparameters of the hypernetwork (lambda, window, gamma), each with the range over "
            "which training draws it uniformly",
            "default": {"lambda": [0, 1]},
        },
        **HYPERNETWORK,
    }
    presets: ClassVar[dict[str, dict]] = {
        "paper": {"end_points": 0},
        "code": {"hidden": [128] * 6, "final": "relu", "generated": ["unet"], "end_points": 0.2, "smoothness": 2},
    }

    def _settle_weights(self, given: Mapping, where: str) -> None:
        super()._settle_weights(given, where)
        chosen = self.settings
        if "window" in self.ranges and chosen["similarity"] != "lncc":
            raise InputError(f"{where}.prior: '{chosen['similarity']}' has no window; set 'similarity: lncc'")
        if "window" not in self.ranges and chosen["window"] % 1:
            raise InputError(f"{where}: 'window: {chosen['window']}' must be whole, or have a range in 'prior'")

    @property
    def observed(self) -> Any:
        return self.settings["observed"] if "gamma" in self.hyperparameters else super().observed

    def _similarity(self) -> Callable[[Tensor, Tensor], Tensor]:
        if "window" not in self.hyperparameters:
            return super()._similarity()
        return lambda fixed, warped: interpolated_lncc(fixed, warped, self.settings["window"])


def interpolated_lncc(fixed: Tensor, warped: Tensor, window: float) -> Tensor:
    """LNCC for any size of the window from 3 on: of the odd sizes around it, interpolated linearly."""
    below = 2 * int((window - 1) // 2) + 1
    share = (window - below) / 2
    loss = lncc(fixed, warped, below, "voxelmorph")
    return loss if share == 0 else (1 - share) * loss + share * lncc(fixed, warped, below + 2, "voxelmorph")
