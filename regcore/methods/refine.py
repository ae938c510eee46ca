"""Refinement of a network's field on each pair: instance-specific optimisation, Section V-D of VoxelMorph.

The flow predicted by a trained network becomes the parameters of an optimisation on that one pair: of the network's
own loss, or of a similarity of the images plus λ times the smoothness of the displacement.  The latter works for any
network, also for one whose loss compares no images, such as SynthMorph.  The network does not change.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from regcore.errors import InputError
from regcore.images.volume import Volume
from regcore.losses import diffusion
from regcore.methods.base import LearnedMethod, Method, Registration, as_registration, as_tensor
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.instance import InstanceSettings
from regcore.methods.settings.refine import ENOUGH, LAMBDA, WITHOUT_IMAGES, RefineSettings
from regcore.methods.similarity import similarity
from regcore.spatial import warp

#: (flow, fixed, moving) → a scalar.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
#: The settings that only a similarity of the descent's own has a use for.
WITH_SIMILARITY = ("window", "bins", "lambda")


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
        self.given, self._where = self.settings, where
        self.start: LearnedMethod | None = None
        self._loss: Loss | None = None

    def start_from(self, method: LearnedMethod) -> None:
        """Set the network, with loaded weights, whose fields to refine; ``settings`` become those for this network.

        Raises
        ------
        InputError
            A setting of the similarity is given, but it is the network's own.
        """
        self.settings, self._loss = self._resolved(method)
        self.start = method

    def check_start(self, method: LearnedMethod) -> None:
        """Raise as :meth:`start_from` does; the network needs no weights."""
        self._resolved(method)

    def _resolved(self, method: LearnedMethod) -> tuple[RefineSettings, "Loss"]:
        """The settings with all that follows from the network, and the loss."""
        given = self.given
        if given.similarity is None and method.compares_images:
            meaningless = [key for key in WITH_SIMILARITY if given.value(key) is not None]
            if meaningless:
                raise InputError(
                    f"{self._where}: '{meaningless[0]}' has no effect on the network's own loss; set 'similarity' too"
                )
            return given, _own_loss(method)
        name = given.similarity or WITHOUT_IMAGES
        chosen = {"similarity": name, "window": given.window, "bins": given.bins}
        compared = InstanceSettings.read({key: v for key, v in chosen.items() if v is not None}, self._where)
        weight = LAMBDA[name] if given.lambda_ is None else given.lambda_
        found = {key: compared.value(key) for key in chosen} | {"lambda": weight}
        if "iterations" not in given.given:
            found["iterations"] = ENOUGH
        return given.with_values(found), _image_loss(method, similarity(compared), weight)

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
        """The flow after the iterations, or the best on the way if they ended above the loss that they began with.

        Shapes are those of :meth:`LearnedMethod.predict`.
        """
        steps = self.descent(flow, fixed, moving)
        first, best = next(steps)
        lowest, loss, last = first, first, best
        for loss, last in steps:
            best = torch.where(loss < lowest, last, best)  # nothing is read from a GPU, which would have to wait
            lowest = torch.minimum(loss, lowest)
        return torch.where(loss <= first, last, best)

    def descent(self, flow: Tensor, fixed: Tensor, moving: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The loss and a copy of the flow before the first step and after every step."""
        self._known_start()
        assert self._loss is not None  # set with the start
        flow = flow.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([flow], lr=self.settings.step)
        for _ in range(self.settings.iterations):
            with torch.enable_grad():
                loss = self._loss(flow, fixed, moving)
                (flow.grad,) = torch.autograd.grad(loss, flow)
            yield loss.detach(), flow.detach().clone()
            optimiser.step()
        with torch.no_grad():
            yield self._loss(flow, fixed, moving), flow.detach()

    def _known_start(self) -> LearnedMethod:
        """The network to start from; raises RuntimeError if it is not set."""
        if self.start is None:
            raise RuntimeError("refinement needs the network it starts from")
        return self.start


def _own_loss(method: LearnedMethod) -> Loss:
    """What the network was trained to minimise, without its labels."""
    return lambda flow, fixed, moving: method.losses(flow, {"fixed": fixed, "moving": moving})["total"]


def _image_loss(method: LearnedMethod, unlikeness: Callable[[Tensor, Tensor], Tensor], weight: float) -> Loss:
    """Similarity of the images plus ``weight`` times the diffusion of the displacement."""

    def loss(flow: Tensor, fixed: Tensor, moving: Tensor) -> Tensor:
        displacement = method.displacement(flow, fixed)
        return unlikeness(fixed, warp(moving, displacement)) + weight * diffusion(displacement)

    return loss
