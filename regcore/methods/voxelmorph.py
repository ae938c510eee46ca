"""VoxelMorph (Balakrishnan et al., TMI 2019), diffeomorphic variant.

A U-Net predicts a stationary velocity from the pair; the velocity is integrated at half resolution by
scaling and squaring and brought to full resolution.  The loss is Eq. 4 of the paper: mean squared error or
local correlation, plus λ times the diffusion of the velocity, as in the authors' code (there on the
half-resolution grid).
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from regcore.kernels.convolution import CHANNELS_LAST
from regcore.losses import diffusion, lncc, mse
from regcore.methods.base import LearnedMethod
from regcore.networks.unet import FlowHead, UNet
from regcore.spatial import crop_to, integrate, pad_to_multiple, resample_displacement, warp

SIMILARITIES = {"mse": mse, "lncc": partial(lncc, window=9, variant="voxelmorph")}


class VelocityNetwork(nn.Module):
    """U-Net and flow head: image pair (B, 2, *space) → velocity (B, D, *space)."""

    def __init__(self, ndim: int):
        super().__init__()
        self.unet = UNet(ndim)
        self.head = FlowHead(ndim, self.unet.out_channels)
        self.to(memory_format=CHANNELS_LAST[ndim + 2])

    def forward(self, pair: Tensor) -> Tensor:
        pair = pair.contiguous(memory_format=CHANNELS_LAST[pair.ndim])
        return self.head(self.unet(pair)).contiguous()


class VoxelMorph(LearnedMethod):
    """VoxelMorph with MSE or local correlation."""

    properties: ClassVar[dict] = {
        "similarity": {
            "description": "mse (Eq. 5), or lncc: local correlation in windows of nine voxels (Eq. 6, as in the "
            "authors' code); the two want different λ",
            "enum": ["mse", "lncc"],
            "default": "mse",
        },
        "lambda": {
            "description": "weight of the smoothness term, λ of Eq. 4",
            "type": "number",
            "minimum": 0,
            "default": 0.02,
        },
        "bidirectional": {
            "description": "also compare the fixed image, warped by the inverse, with the moving one",
            "type": "boolean",
            "default": False,
        },
        "integration_steps": {
            "description": "squarings of scaling and squaring",
            "type": "integer",
            "minimum": 0,
            "default": 7,
        },
        "steps": {
            "description": "training steps",
            "type": "integer",
            "minimum": 1,
            "default": 150000,
        },
        "batch_size": {
            "description": "pairs per step",
            "type": "integer",
            "minimum": 1,
            "default": 1,
        },
        "learning_rate": {
            "description": "of Adam",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 1e-4,
        },
        "schedule": {
            "description": "learning rate over the steps: constant (the paper), or a cosine that ends at zero",
            "enum": ["constant", "cosine"],
            "default": "constant",
        },
        "validate_every": {
            "description": "steps between two looks at the validation pairs and two checkpoints",
            "type": "integer",
            "minimum": 1,
            "default": 1000,
        },
    }

    def build(self, ndim: int) -> nn.Module:
        return VelocityNetwork(ndim)

    def training_step(self, module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        fixed, moving = batch["fixed"], batch["moving"]
        velocity = self._velocity(module, fixed, moving)
        displacement = self._to_image(self._integrate(velocity), fixed)
        name, compare = self.settings["similarity"], SIMILARITIES[self.settings["similarity"]]
        similarity = compare(fixed, warp(moving, displacement))
        if self.settings["bidirectional"]:
            inverse = self._to_image(self._integrate(-velocity), fixed)
            similarity = 0.5 * (similarity + compare(moving, warp(fixed, inverse)))
        smoothness = diffusion(velocity)
        return {
            "total": similarity + self.settings["lambda"] * smoothness,
            name: similarity,
            "diffusion": smoothness,
        }

    def displacements(self, module: nn.Module, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor | None]:
        velocity = self._velocity(module, fixed, moving)
        return (
            self._to_image(self._integrate(velocity), fixed),
            self._to_image(self._integrate(-velocity), fixed),
        )

    def _velocity(self, module: nn.Module, fixed: Tensor, moving: Tensor) -> Tensor:
        """Velocity at half resolution of the padded images, in voxels of that grid."""
        pair = pad_to_multiple(torch.cat([moving, fixed], dim=1), module.unet.stride)
        velocity = module(pair)
        return resample_displacement(velocity, [n // 2 for n in velocity.shape[2:]])

    def _integrate(self, velocity: Tensor) -> Tensor:
        return integrate(velocity, self.settings["integration_steps"])

    def _to_image(self, displacement: Tensor, image: Tensor) -> Tensor:
        """From half resolution to the image's voxels, without the padding."""
        padded = [2 * n for n in displacement.shape[2:]]
        return crop_to(resample_displacement(displacement, padded), image.shape[2:])
