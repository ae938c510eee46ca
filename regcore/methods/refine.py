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
    """Raise :class:`InputError` for a network whose loss cannot refine a pair.

    Parameters
    ----------
    method : LearnedMethod
        The network to start from.
    where : str
        The key to name in messages.

    Raises
    ------
    InputError
        Its loss needs labels.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.methods import make_method
    >>> from regcore.methods.refine import require_comparing_images
    >>> require_comparing_images(make_method("voxelmorph"), "start")
    >>> try:
    ...     require_comparing_images(make_method("synthmorph"), "start")
    ... except InputError as error:
    ...     print(str(error).partition(";")[0])
    start: this network's loss needs labels, so it cannot refine a pair of images
    """
    if not method.compares_images:
        raise InputError(
            f"{where}: this network's loss needs labels, so it cannot refine a pair of images; start from another "
            "network, or use 'method: instance'"
        )


class Refine(Method):
    """Refine a trained network's field with some iterations on the pair itself.

    Parameters
    ----------
    settings : mapping or MethodSettings
        As for :class:`regcore.methods.base.Method`.
    where : str
        Name of the settings in messages.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> grid = Grid.centred((32, 32), spacing=(1, 1), centre=(0, 0))
    >>> disc = (np.linalg.norm(np.indices((32, 32)) - 15.5, axis=0) < 9).astype(np.float32)
    >>> fixed, moving = Volume(disc, grid), Volume(np.roll(disc, 2, axis=0), grid)
    >>> network = make_method("voxelmorph", {"similarity": "mse"})
    >>> network.module = network.build(ndim=2).eval()  # untrained: all that is found, the refinement finds
    >>> refine = make_method("refine", {"iterations": 10})
    >>> refine.start_from(network)
    >>> moved = refine.register(fixed, moving).field.warp(moving)
    >>> bool(np.square(moved.data - disc).mean() < np.square(moving.data - disc).mean())
    True
    """

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
