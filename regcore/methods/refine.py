"""Refinement of a network's field on each pair: instance-specific optimisation, Section V-D of VoxelMorph.

The flow predicted by a trained network becomes the parameters of an optimisation of the network's own loss on that
one pair.  The network does not change.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from regcore.errors import InputError
from regcore.images.volume import Volume
from regcore.methods.base import LearnedMethod, Method, Registration, as_registration, as_tensor
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.refine import RefineSettings


def require_comparing_images(method: LearnedMethod, where: str) -> None:
    """Raise InputError for a network whose loss cannot refine a pair."""
    if not method.compares_images:
        raise InputError(
            f"{where}: this network's loss needs labels, so it cannot refine a pair of images; start from another "
            "network, or use 'method: instance'"
        )


class Refine(Method):
    """Refine a trained network's field with some iterations on the pair itself."""

    settings_type: ClassVar = RefineSettings
    refines: ClassVar = True
    settings: RefineSettings

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        self.start: LearnedMethod | None = None

    def start_from(self, method: LearnedMethod) -> None:
        """Set the network, with loaded weights, whose fields to refine.

        Raises
        ------
        InputError
            Its loss uses only labels, which a pair to register does not have.
        """
        require_comparing_images(method, "start")
        self.start = method

    @property
    def device(self) -> torch.device:
        return super().device if self.start is None else self.start.device

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        start = self._known_start()
        images = [as_tensor(volume).to(start.device) for volume in (fixed, moving)]
        with torch.no_grad():
            flow = start.refinable(start.predict(start.network, *images))
        flow = self.refined(flow, *images)
        with torch.no_grad():
            return as_registration(*start.displacements(flow, images[0]), fixed, moving)

    def refined(self, flow: Tensor, fixed: Tensor, moving: Tensor) -> Tensor:
        """The flow after the iterations; shapes as for :meth:`LearnedMethod.predict`."""
        start = self._known_start()
        flow = flow.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([flow], lr=self.settings.step)
        with torch.enable_grad():
            for _ in range(self.settings.iterations):
                loss = start.losses(flow, {"fixed": fixed, "moving": moving})["total"]
                (flow.grad,) = torch.autograd.grad(loss, flow)
                optimiser.step()
        return flow.detach()

    def _known_start(self) -> LearnedMethod:
        """The network to start from; raises RuntimeError if it is not set."""
        if self.start is None:
            raise RuntimeError("refinement needs the network it starts from")
        return self.start
