"""Registration by gradient descent on the displacement of every voxel."""

import torch
from pydantic import Field

from regcore.losses import diffusion, mse
from regcore.methods.base import Method, Registration, as_registration, as_tensor
from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Count, NonNegative, Positive
from regcore.spatial import warp


class DescentSettings(MethodSettings):
    steps: Count = Field(100, description="steps of Adam")
    rate: Positive = Field(0.1, description="learning rate, in voxels")
    lambda_: NonNegative = Field(0.02, description="weight of the smoothness")


class Descent(Method):
    """Gradient descent on the displacement of every voxel."""

    settings_type = DescentSettings
    settings: DescentSettings

    def register(self, fixed, moving) -> Registration:
        target, source = as_tensor(fixed), as_tensor(moving)
        displacement = torch.zeros(1, fixed.grid.ndim, *fixed.grid.shape, requires_grad=True)
        optimiser = torch.optim.Adam([displacement], lr=self.settings.rate)
        for _ in range(self.settings.steps):
            optimiser.zero_grad()
            unlike = mse(target, warp(source, displacement))
            (unlike + self.settings.lambda_ * diffusion(displacement)).backward()
            optimiser.step()
        return as_registration(displacement.detach(), None, fixed, moving)
