"""SynthMorph (Hoffmann et al., TMI 2022): registration of any contrast, learned from images that nobody acquired.

Every training step draws label maps, from noise or from a cohort's segmentations, makes a pair of images with random
contrasts of them, and looks at the overlap of the labels.  The images of the training scans are not looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from regcore.cohort.labels import BY_SIZE
from regcore.errors import InputError
from regcore.losses import diffusion, field_mse, soft_dice
from regcore.methods.base import TRAINING
from regcore.methods.flow import FLOW, FlowMethod
from regcore.spatial import compose, crop_to, integrate, resample_displacement
from regcore.synthesis.intensities import ImageRanges, Pair, WarpRanges, draw_pair
from regcore.synthesis.noise import Draws, random_generator
from regcore.synthesis.shapes import random_shapes

#: r_v and b_v of the two kinds of maps (Table I, Sections II-C.3 and III-G).
SHAPES, COHORT = "shapes", "cohort"
WARPS = {SHAPES: ([8, 16, 32], 3), COHORT: ([16], 0.5)}


def _range(description: str, default: float, **limits: float) -> dict:
    return {"description": description, "type": "number", "minimum": 0, **limits, "default": default}


#: What pairs are drawn from, under the paper's symbols (Table I).
GENERATION = {
    "J": {"description": "labels of a map of shapes", "type": "integer", "minimum": 2, "maximum": 256, "default": 26},
    "r_p": _range("noise and warps of shapes are drawn at 1:r_p of the size", 32, minimum=1),
    "b_p": _range("largest standard deviation of the warps of shapes, voxels", 100),
    "shape_maps": {
        "description": "maps of shapes that training draws from, the first so many of one sequence, whatever the seed",
        "type": "integer",
        "minimum": 1,
        "default": 100,
    },
    "shape_voxels": {
        "description": "size of maps of shapes along every axis; null: that of the images",
        "type": ["integer", "null"],
        "minimum": 16,
        "default": None,
    },
    "a_mu": _range("least mean intensity of a label", ImageRanges.a_mu),
    "b_mu": _range("largest mean intensity of a label", ImageRanges.b_mu),
    "a_sigma": _range("least standard deviation of a label's intensities", ImageRanges.a_sigma),
    "b_sigma": _range("largest standard deviation of a label's intensities", ImageRanges.b_sigma),
    "b_K": _range("largest standard deviation of the blur, voxels", ImageRanges.b_K),
    "r_B": _range("bias fields are drawn at 1:r_B of the size", ImageRanges.r_B, minimum=1),
    "b_B": _range("largest standard deviation of the logarithm of the bias field", ImageRanges.b_B),
    "sigma_gamma": _range("standard deviation of γ; intensities are raised to exp(γ)", ImageRanges.sigma_gamma),
    "r_v": {
        "description": "velocities are drawn at 1:r_v of the size and added; null: 8, 16 and 32, but 16 for the "
        "overlap of the cohort's maps",
        "type": ["array", "null"],
        "minItems": 1,
        "items": {"type": "number", "minimum": 1},
        "default": None,
    },
    "b_v": {
        "description": "largest standard deviation of velocities, voxels of half resolution; null: 3, but 0.5 for the "
        "overlap of the cohort's maps",
        "type": ["number", "null"],
        "minimum": 0,
        "default": None,
    },
    "flips": {"description": "flip axes at random", "type": "boolean", "default": True},
    "empty_background": _range("how often label 0 is black", ImageRanges.empty_background, maximum=1),
    "thickest": _range("largest thickness of slices along one axis, voxels; 1: none", ImageRanges.thickest, minimum=1),
    "largest_crop": _range("largest share of an axis beyond the field of view", ImageRanges.largest_crop, maximum=0.9),
}


class SynthMorph(FlowMethod):
    """SynthMorph from shapes (sm-shapes), from the cohort's label maps (sm-brains), or supervised by the true warp."""

    properties: ClassVar[dict] = {
        "preset": {
            "description": "paper (256 features in every layer), or null: 64, the width of the authors' code and of "
            "the paper's sweeps",
            "enum": ["paper", None],
            "default": None,
        },
        "maps": {
            "description": "label maps that images are made of: shapes (from noise), or cohort (those of the training "
            "scans)",
            "enum": [SHAPES, COHORT],
            "default": SHAPES,
        },
        "loss": {
            "description": "dice (overlap of the labels), or supervised by the drawn warp: svf (its velocity) or "
            "displacement",
            "enum": ["dice", "svf", "displacement"],
            "default": "dice",
        },
        "loss_labels": {
            "description": "of the cohort's labels the so many largest count in the loss",
            "type": "integer",
            "minimum": 1,
            "default": 26,
        },
        "lambda": {
            "description": "weight of the smoothness of the displacement",
            "type": "number",
            "minimum": 0,
            "default": 1,
        },
        "symmetric": {
            "description": "predict half the difference of the velocities of both directions, so that swapping the "
            "images swaps the sign",
            "type": "boolean",
            "default": False,
        },
        **FLOW,
        "architecture": FLOW["architecture"] | {"default": "synthmorph"},
        "flow": FLOW["flow"] | {"enum": ["velocity"]},
        "integration_steps": FLOW["integration_steps"] | {"default": 5},
        **GENERATION,
        **TRAINING,
    }
    presets: ClassVar[dict[str, dict]] = {"paper": {"width": 4}}

    def __init__(self, settings: Mapping, where: str = "method"):
        super().__init__(settings, where)
        chosen = self.settings
        # One map makes both images of a supervised pair: its warps alone tell them apart, as with shapes.
        resolutions, largest = WARPS[chosen["maps"] if chosen["loss"] == "dice" else SHAPES]
        chosen["r_v"] = resolutions if chosen["r_v"] is None else chosen["r_v"]
        chosen["b_v"] = largest if chosen["b_v"] is None else chosen["b_v"]
        for low, high in (("a_mu", "b_mu"), ("a_sigma", "b_sigma")):
            if chosen[low] > chosen[high]:
                raise InputError(f"{where}: '{low}: {chosen[low]}' is above '{high}: {chosen[high]}'")
        if chosen["shape_voxels"] and chosen["maps"] != SHAPES:
            raise InputError(f"{where}: 'shape_voxels' is the size of shapes; the cohort's maps have their own")
        if chosen["symmetric"] and chosen["passes"] > 1:
            raise InputError(f"{where}: 'symmetric' looks once; set 'passes: 1'")
        if chosen["loss"] == "svf" and chosen["flow_resolution"] != 2:
            raise InputError(f"{where}: the true velocity is of half resolution; set 'flow_resolution: 2'")
        if chosen["select"] == "loss":
            raise InputError(f"{where}: real pairs have no loss of SynthMorph's; set 'select: dice'")
        self._images = ImageRanges(**{rule.name: chosen[rule.name] for rule in fields(ImageRanges)})
        self._warps = WarpRanges(tuple(chosen["r_v"]), chosen["b_v"], chosen["integration_steps"], chosen["flips"])
        self._maps: dict[tuple, Tensor] = {}

    @property
    def observed(self) -> Any:
        return BY_SIZE if self.settings["maps"] == COHORT else None

    @property
    def compares_images(self) -> bool:
        return False

    def predict(
        self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor, passes: int | None = None
    ) -> Tensor:
        flow = super().predict(module, fixed, moving, passes)
        if self.settings["symmetric"]:
            return 0.5 * (flow - super().predict(module, moving, fixed, passes))
        return flow

    def training_step(self, module: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of the network's prediction for pairs that are drawn here, from torch's global random state."""
        drawn = self.synthesised(batch)
        return self.losses(self.predict_in_training(module, drawn["fixed"], drawn["moving"]), drawn)

    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of a batch from :meth:`synthesised`."""
        displacement = self.displacement(flow, batch["fixed"])
        found = {"diffusion": diffusion(displacement)}
        if self.settings["loss"] == "dice":
            labels = batch["fixed_labels"], batch["moving_labels"]
            found["label_dice"] = soft_dice(*labels, displacement, batch["codes"])
        elif self.settings["loss"] == "svf":
            found["svf"] = field_mse(crop_to(flow, batch["velocity"].shape[2:]), batch["velocity"])
        else:
            found["field"] = field_mse(displacement, batch["displacement"])
        unlikeness = sum(value for name, value in found.items() if name != "diffusion")
        return {"total": unlikeness + self.settings["lambda"] * found["diffusion"], **found}

    def synthesised(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Pairs of images of the batch's label maps, or of shapes.

        Returns
        -------
        dict
            ``fixed`` and ``moving`` images, ``fixed_labels``, ``moving_labels``, the ``codes`` that count, and where
            both maps of a pair are the same one the ``velocity`` and ``displacement`` between them.
        """
        device, space = batch["fixed"].device, tuple(batch["fixed"].shape[2:])
        if self.settings["shape_voxels"]:
            space = (self.settings["shape_voxels"],) * len(space)
        draws = random_generator(device)
        pairs = []
        for number in range(len(batch["fixed"])):
            maps = self._pair_of_maps(batch, number, space, device)
            pairs.append(draw_pair(*maps, self._images, self._warps, draws))
        drawn = {
            name: torch.cat([getattr(pair, name) for pair in pairs])
            for name in ("fixed", "moving", "fixed_labels", "moving_labels")
        }
        drawn["codes"] = self._codes(batch)
        if self.settings["loss"] != "dice":
            drawn |= self._truth(pairs, space)
        return drawn

    def _pair_of_maps(
        self, batch: Mapping[str, Any], number: int, space: tuple[int, ...], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Label maps (1, 1, *space) that a moving and a fixed image are made of; the true warp needs one map twice."""
        if self.settings["maps"] == SHAPES:
            shapes = self._shapes(int(torch.randint(self.settings["shape_maps"], ())), space, device)
            return shapes, shapes
        moving, fixed = (batch[f"{side}_labels"][number : number + 1] for side in ("moving", "fixed"))
        return (moving, fixed) if self.settings["loss"] == "dice" else (fixed, fixed)

    def _shapes(self, number: int, space: tuple[int, ...], device: torch.device) -> Tensor:
        """One of the maps of shapes, which are made once."""
        key = (number, space, device)
        if key not in self._maps:
            chosen = self.settings
            self._maps[key] = random_shapes(space, Draws(number, device), chosen["J"], chosen["r_p"], chosen["b_p"])
        return self._maps[key]

    def _codes(self, batch: Mapping[str, Any]) -> list[int]:
        if self.settings["maps"] == SHAPES:
            return list(range(self.settings["J"]))
        return list(batch["codes"])[: self.settings["loss_labels"]]

    def _truth(self, pairs: list[Pair], space: tuple[int, ...]) -> dict[str, Tensor]:
        """The warp from the fixed to the moving image, both deformed from one map: of the fixed one, then back.

        Its velocity is taken to be the difference of the two, which it is to first order.
        """
        steps = self._warps.steps
        moving, fixed = (torch.cat([pair.velocities[side] for pair in pairs]) for side in (0, 1))
        between = compose(integrate(fixed, steps), integrate(-moving, steps))
        return {"velocity": fixed - moving, "displacement": resample_displacement(between, space)}
