"""SynthMorph (Hoffmann et al., TMI 2022): registration of any contrast, learned from synthetic images.

Every training step draws label maps, from noise or from a cohort's segmentations, synthesises a pair of images with
random contrasts from them, and measures the overlap of the labels.  The images of the training scans are not used.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from regcore.cohort.labels import BY_SIZE
from regcore.losses import diffusion, field_mse, soft_dice
from regcore.methods.flow import FlowMethod, unet_design
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.synthmorph import COHORT, SHAPES, SynthMorphSettings
from regcore.networks.unet import UNetDesign
from regcore.spatial import compose, crop_to, integrate, resample_displacement
from regcore.synthesis.intensities import ImageRanges, Pair, WarpRanges, draw_pair
from regcore.synthesis.noise import Draws, random_generator
from regcore.synthesis.shapes import random_shapes


class SynthMorph(FlowMethod):
    """SynthMorph from shapes (sm-shapes), from the cohort's label maps (sm-brains), or supervised by the true warp.

    The first two are those of [1]_.

    Parameters
    ----------
    settings : mapping or MethodSettings
        As for :class:`regcore.methods.base.Method`.
    where : str
        Name of the settings in messages.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods import make_method
    >>> method = make_method("synthmorph", {"J": 6, "r_p": 8, "b_p": 4})
    >>> drawn = method.synthesised({"fixed": torch.zeros(2, 1, 32, 32)})  # only the shape of the scans counts
    >>> tuple(drawn["fixed"].shape), drawn["codes"], torch.equal(drawn["fixed_labels"], drawn["moving_labels"])
    ((2, 1, 32, 32), [0, 1, 2, 3, 4, 5], False)
    """

    settings_type: ClassVar = SynthMorphSettings
    settings: SynthMorphSettings

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        chosen = self.settings
        self._images = ImageRanges(**{rule.name: chosen.value(rule.name) for rule in fields(ImageRanges)})
        assert chosen.r_v is not None and chosen.b_v is not None  # set when the settings were read
        self._warps = WarpRanges(tuple(chosen.r_v), chosen.b_v, chosen.integration_steps, chosen.flips)
        self._maps: dict[tuple, Tensor] = {}

    @property
    def design(self) -> UNetDesign:
        return unet_design(self.settings, self.settings.input)

    @property
    def observed(self) -> Any:
        return BY_SIZE if self.settings.maps == COHORT else None

    @property
    def compares_images(self) -> bool:
        return False

    def predict(
        self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor, passes: int | None = None
    ) -> Tensor:
        flow = super().predict(module, fixed, moving, passes)
        if self.settings.symmetric:
            return 0.5 * (flow - super().predict(module, moving, fixed, passes))
        return flow

    def training_step(self, module: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of the network's prediction for synthetic pairs, drawn from torch's global state."""
        drawn = self.synthesised(batch)
        return self.losses(self.predict_in_training(module, drawn["fixed"], drawn["moving"]), drawn)

    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses for a batch from :meth:`synthesised`."""
        displacement = self.displacement(flow, batch["fixed"])
        found = {"diffusion": diffusion(displacement)}
        if self.settings.loss == "dice":
            labels = batch["fixed_labels"], batch["moving_labels"]
            found["label_dice"] = soft_dice(*labels, displacement, batch["codes"])
        elif self.settings.loss == "svf":
            found["svf"] = field_mse(crop_to(flow, batch["velocity"].shape[2:]), batch["velocity"])
        else:
            found["field"] = field_mse(displacement, batch["displacement"])
        unlikeness = sum(value for name, value in found.items() if name != "diffusion")
        return {"total": unlikeness + self.settings.lambda_ * found["diffusion"], **found}

    def synthesised(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Pairs of images synthesised from the batch's label maps, or from shapes.

        Returns
        -------
        dict
            ``fixed`` and ``moving`` images, ``fixed_labels``, ``moving_labels``, the ``codes`` that count and, if both
            images come from one map, the ``velocity`` and ``displacement`` between them.
        """
        device, space = batch["fixed"].device, tuple(batch["fixed"].shape[2:])
        if self.settings.shape_voxels:
            space = (self.settings.shape_voxels,) * len(space)
        draws = random_generator(device)
        pairs = []
        for number in range(len(batch["fixed"])):
            maps = self._pair_of_maps(batch, number, space, device)
            pairs.append(draw_pair(*maps, self._images, self._warps, draws))
        drawn: dict[str, Any] = {
            name: torch.cat([getattr(pair, name) for pair in pairs])
            for name in ("fixed", "moving", "fixed_labels", "moving_labels")
        }
        drawn["codes"] = self._codes(batch)
        if self.settings.loss != "dice":
            drawn |= self._truth(pairs, space)
        return drawn

    def _pair_of_maps(
        self, batch: Mapping[str, Any], number: int, space: tuple[int, ...], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Label maps (1, 1, *space) of a moving and a fixed image; the same map twice if the true warp is needed."""
        if self.settings.maps == SHAPES:
            shapes = self._shapes(int(torch.randint(self.settings.shape_maps, ())), space, device)
            return shapes, shapes
        moving, fixed = (batch[f"{side}_labels"][number : number + 1] for side in ("moving", "fixed"))
        return (moving, fixed) if self.settings.loss == "dice" else (fixed, fixed)

    def _shapes(self, number: int, space: tuple[int, ...], device: torch.device) -> Tensor:
        """One of the maps of shapes, which are cached."""
        key = (number, space, device)
        if key not in self._maps:
            chosen = self.settings
            self._maps[key] = random_shapes(space, Draws(number, device), chosen.J, chosen.r_p, chosen.b_p)
        return self._maps[key]

    def _codes(self, batch: Mapping[str, Any]) -> list[int]:
        if self.settings.maps == SHAPES:
            return list(range(self.settings.J))
        return list(batch["codes"])[: self.settings.loss_labels]

    def _truth(self, pairs: list[Pair], space: tuple[int, ...]) -> dict[str, Tensor]:
        """The warp between two images of one map: the fixed image's warp, then the inverse of the moving one's.

        Its velocity is taken to be the difference of both velocities, which is correct to first order.
        """
        steps = self._warps.steps
        moving, fixed = (torch.cat([pair.velocities[side] for pair in pairs]) for side in (0, 1))
        between = compose(integrate(fixed, steps), integrate(-moving, steps))
        return {"velocity": fixed - moving, "displacement": resample_displacement(between, space)}
