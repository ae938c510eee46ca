"""Shared by VoxelMorph and its descendants: a network that predicts a flow, and how a flow warps an image."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from regcore.losses import mind_ssc_descriptor
from regcore.methods.base import LearnedMethod
from regcore.methods.settings.flow import MIND, FlowSettings, UNetSettings
from regcore.networks.design import Design
from regcore.networks.unet import UNetDesign
from regcore.spatial import crop_to, integrate, pad_to_multiple, resample_displacement, warp

#: Channels of a pair of descriptors in two and three dimensions.
DESCRIPTORS = {2: 8, 3: 24}
#: Patches of three voxels: larger ones blur the boundaries of labels.
DESCRIPTOR = {"radius": 1, "dilation": 2}


class FlowMethod(LearnedMethod):
    """A method whose network predicts a displacement, or a velocity that is integrated."""

    settings: FlowSettings

    @property
    @abstractmethod
    def design(self) -> Design:
        """The network."""

    @property
    def stride(self) -> int:
        return self.design.stride

    def build(self, ndim: int) -> nn.Module:
        return self.design.build(ndim)

    def network_input(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """The network's input (B, C, *padded) for image pairs (B, 1, *space)."""
        shown = [moving, fixed]
        if self.settings.input == MIND:
            with torch.no_grad():
                shown = [mind_ssc_descriptor(image, **DESCRIPTOR) for image in shown]
        return pad_to_multiple(torch.cat(shown, dim=1), self.stride)

    def predict(
        self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor, passes: int | None = None
    ) -> Tensor:
        """Flow on the padded grid at ``flow_resolution``, in voxels of that grid. ``passes`` overrides the setting.

        To first order, the sum of velocities is that of the composed warps, exp(v) ∘ exp(δ) ≈ exp(v + δ), as in
        log-domain demons (Vercauteren et al., MICCAI 2008). The weights are shared as in recursive cascades (Zhao et
        al., ICCV 2019).
        """
        flow = self._look(module, fixed, moving)
        for _ in range(1, passes or self.settings.passes):
            flow = flow + self._look(module, fixed, warp(moving, self.displacement(flow, fixed)))
        return flow

    def predict_in_training(self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        """Flow after a random number of passes, drawn from torch's global state. Only the last pass is learned.

        Earlier passes cost only their forward calls.
        """
        if self.settings.passes == 1:
            return self.predict(module, fixed, moving)
        before = int(torch.randint(self.settings.passes, ()))
        if before == 0:
            return self.predict(module, fixed, moving, passes=1)
        with torch.no_grad():
            flow = self.predict(module, fixed, moving, passes=before)
            moved = warp(moving, self.displacement(flow, fixed))
        return flow + self.predict(module, fixed, moved, passes=1)

    def _look(self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        pair = self.network_input(fixed, moving)
        flow = module(pair).float()
        shape = [n // self.settings.flow_resolution for n in pair.shape[2:]]
        return flow if list(flow.shape[2:]) == shape else resample_displacement(flow, shape)

    def displacements(self, flow: Tensor, image: Tensor) -> tuple[Tensor, Tensor | None]:
        inverse = None if self.settings.flow == "displacement" else self.displacement(-flow, image)
        return self.displacement(flow, image), inverse

    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        if self.settings.flow == "velocity":
            flow = integrate(flow, self.settings.integration_steps)
        factor = self.settings.flow_resolution
        if factor > 1:
            flow = resample_displacement(flow, [factor * n for n in flow.shape[2:]])
        return crop_to(flow, image.shape[2:])


def unet_design(settings: UNetSettings, sees: str) -> UNetDesign:
    """The U-Net for some settings, with images or descriptors as its input."""
    return UNetDesign(settings.architecture, settings.width, DESCRIPTORS if sees == MIND else None)
