"""Settings of HyperMorph: VoxelMorph with a hypernetwork."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.base import Share
from regcore.methods.settings.flow import UNetName, UNetSettings
from regcore.methods.settings.hypernetwork import HypernetworkSettings, Ranges
from regcore.methods.settings.objective import ImageTermsSettings, WeightingSettings
from regcore.settings.base import Number, Positive


class HyperMorphSettings(HypernetworkSettings, UNetSettings, WeightingSettings, ImageTermsSettings):
    """Settings of VoxelMorph, and of a hypernetwork over λ, and optionally the window of lncc or γ."""

    ranges_key: ClassVar = "prior"
    presets: ClassVar = {
        "paper": {"end_points": 0},
        "code": {"hidden": [128] * 6, "final": "relu", "generated": ["unet"], "end_points": 0.2, "smoothness": 2},
    }

    preset: Literal["paper", "code"] | None = Field(
        None,
        description="source of the hypernetwork's defaults: paper (4 layers of 64 units, tanh; all weights are "
        "generated), code (6 of 128; the flow's convolution is trained as usual; end points drawn more often) or null, "
        "regcore's own",
    )
    prior: Ranges = Field(
        {"lambda": [0, 1]},
        description="the hyperparameters of the hypernetwork (lambda, window, gamma), each with the range from which "
        "training draws it uniformly",
    )
    lambda_: Share | None = Field(
        None, description="λ of Eq. 2 to register with; null: the best on the validation pairs"
    )
    window: Annotated[Number, Field(ge=2)] | None = Field(
        9,
        description="side of the windows of lncc in voxels; as a hyperparameter any number, interpolated linearly "
        "between the losses of neighbouring odd sizes; null: the best on the validation pairs",
    )
    gamma: Share | None = Field(
        0,
        description="γ of Eq. 3, weight of the overlap of labels; as a hyperparameter the value to register with, "
        "null: the best on the validation pairs",
    )
    architecture: UNetName = Field("half", description="the U-Net; see regcore/networks/unet_architecture.py")
    passes: Literal[1] = Field(1, description="runs of the network per pair: one")
    weighting: Literal["convex"] = Field(
        "convex", description="weighting of the terms: (1 - λ) ((1 - γ) similarity + γ overlap) + λ smoothness"
    )
    image_sigma: Positive = Field(
        0.05,
        description="standard deviation of the noise in the images; mse is divided by its square; 1 for no scaling",
    )

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        return {"lambda": (0, 1), "gamma": (0, 1), "window": (3, 99)}

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        self.check_unet(self.flow_resolution, where)
        self.settle_hyperparameters(given, where)
        if "window" in self.prior and self.similarity != "lncc":
            raise InputError(f"{where}.prior: '{self.similarity}' has no window; set 'similarity: lncc'")
        if "window" not in self.prior and self.window is not None and self.window % 1:
            raise InputError(f"{where}: 'window: {self.window}' must be whole, or have a range in 'prior'")
