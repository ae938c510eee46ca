"""Settings of SynthMorph."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.flow import FlowSettings, UNetName, UNetSettings
from regcore.settings.base import Count, NonNegative, Number, Whole

#: r_v and b_v for both kinds of maps (Table I, Sections II-C.3 and III-G).
SHAPES, COHORT = "shapes", "cohort"
WARPS: dict[str, tuple[list[Number], Number]] = {SHAPES: ([8, 16, 32], 3), COHORT: ([16], 0.5)}
#: A number from 1 on.
FromOne = Annotated[Number, Field(ge=1)]


class GenerationSettings(MethodSettings):
    """Distribution of the synthetic pairs, with the paper's symbols (Table I)."""

    J: Annotated[int, Field(ge=2, le=256)] = Field(26, description="number of labels in a map of shapes")
    r_p: FromOne = Field(32, description="noise and warps of shapes are drawn at 1:r_p of the size")
    b_p: NonNegative = Field(100, description="largest standard deviation of the warps of shapes, voxels")
    shape_maps: Count = Field(
        100,
        description="number of maps of shapes that training draws from; they do not depend on the seed",
    )
    shape_voxels: Annotated[int, Field(ge=16)] | None = Field(
        None, description="size of maps of shapes along every axis; null: the size of the images"
    )
    a_mu: NonNegative = Field(25, description="smallest mean intensity of a label")
    b_mu: NonNegative = Field(225, description="largest mean intensity of a label")
    a_sigma: NonNegative = Field(5, description="smallest standard deviation of a label's intensities")
    b_sigma: NonNegative = Field(25, description="largest standard deviation of a label's intensities")
    b_K: NonNegative = Field(1, description="largest standard deviation of the blur, voxels")
    r_B: FromOne = Field(40, description="bias fields are drawn at 1:r_B of the size")
    b_B: NonNegative = Field(0.3, description="largest standard deviation of the logarithm of the bias field")
    sigma_gamma: NonNegative = Field(0.25, description="standard deviation of γ; intensities are raised to exp(γ)")
    r_v: Annotated[list[FromOne], Field(min_length=1)] | None = Field(
        None,
        description="velocities are drawn at 1:r_v of the size and added; null: 8, 16 and 32, but 16 for the "
        "overlap of the cohort's maps",
    )
    b_v: NonNegative | None = Field(
        None,
        description="largest standard deviation of velocities, voxels of half resolution; null: 3, but 0.5 for the "
        "overlap of the cohort's maps",
    )
    flips: bool = Field(True, description="flip axes at random")
    empty_background: Annotated[Number, Field(ge=0, le=1)] = Field(0.2, description="probability that label 0 is black")
    thickest: FromOne = Field(1, description="largest thickness of slices along one axis, voxels; 1: no thick slices")
    largest_crop: Annotated[Number, Field(ge=0, le=0.9)] = Field(
        0, description="largest fraction of an axis outside the field of view"
    )


class SynthMorphSettings(GenerationSettings, UNetSettings, FlowSettings):
    """Synthesis, loss and U-Net."""

    presets: ClassVar = {"paper": {"width": 4}}

    preset: Literal["paper"] | None = Field(
        None,
        description="paper (256 features in every layer), or null: 64, the width of the authors' code and of the "
        "paper's sweeps",
    )
    maps: Literal["shapes", "cohort"] = Field(
        "shapes",
        description="label maps to synthesise images from: shapes (from noise) or cohort (those of the training scans)",
    )
    loss: Literal["dice", "svf", "displacement"] = Field(
        "dice",
        description="dice (overlap of the labels), or supervised by the true warp: svf (its velocity) or displacement",
    )
    loss_labels: Count = Field(26, description="number of the cohort's largest labels that count in the loss")
    lambda_: NonNegative = Field(1, description="weight of the smoothness of the displacement")
    symmetric: bool = Field(
        False,
        description="predict half the difference of the velocities of both directions, so that swapping the images "
        "changes the sign",
    )
    architecture: UNetName = Field("synthmorph", description="the U-Net; see regcore/networks/unet_architecture.py")
    flow: Literal["velocity"] = Field("velocity", description="output of the network: a velocity")
    integration_steps: Whole = Field(5, description="squarings in scaling and squaring")

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        self.check_unet(self.flow_resolution, where)
        # Both images of a supervised pair come from one map: only the warps differ, as with shapes.
        resolutions, largest = WARPS[self.maps if self.loss == "dice" else SHAPES]
        self.r_v = resolutions if self.r_v is None else self.r_v
        self.b_v = largest if self.b_v is None else self.b_v
        for low, high in (("a_mu", "b_mu"), ("a_sigma", "b_sigma")):
            least, most = self.value(low), self.value(high)
            if least > most:
                raise InputError(f"{where}: '{low}: {least}' is above '{high}: {most}'")
        if self.shape_voxels and self.maps != SHAPES:
            raise InputError(f"{where}: 'shape_voxels' is the size of shapes; the cohort's maps have their own")
        if self.symmetric and self.passes > 1:
            raise InputError(f"{where}: 'symmetric' works with one pass; set 'passes: 1'")
        if self.loss == "svf" and self.flow_resolution != 2:
            raise InputError(f"{where}: the true velocity is at half resolution; set 'flow_resolution: 2'")
        if self.select == "loss":
            raise InputError(f"{where}: SynthMorph's loss is not defined on real pairs; set 'select: dice'")
