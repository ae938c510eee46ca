"""Registration of one pair by multi-resolution optimisation, without training.

The field is either a displacement with which every step is composed (as in greedy and FireANTs), or a stationary
velocity that is integrated.  A step follows the gradient of the similarity with momentum.  Its length at each voxel is
the ratio of the gradient's running mean to its running root mean square, so flat and steep regions move alike.  The
step is smoothed before it is taken, and the field after it.  Smoothing is the only regularisation.  With ``prior``, the
field is smoothed at each voxel by the weight that TM-SPR's Beta prior gives for it
(:func:`regcore.losses.beta_weight`).
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.images.volume import Volume
from regcore.kernels.label_dice import place
from regcore.losses import beta_weight, soft_dice
from regcore.methods.base import Channel, GuidingLabels, Method, Registration, as_registration, as_tensor
from regcore.methods.constants import LABEL_WEIGHTS
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.instance import InstanceSettings
from regcore.methods.similarity import similarity
from regcore.process.cuda_graph import Recording
from regcore.process.devices import default_device
from regcore.spatial import (
    compose,
    diffuse,
    integrate,
    invert,
    jacobian_determinant,
    resample,
    resample_displacement,
    smooth,
    squared_gradient,
    warp,
)

Unlikeness = Callable[[Tensor, Tensor], Tensor]

#: Smallest size of a level along an axis, in voxels: below it, windows are mostly border.
SMALLEST = 8
#: Fraction of the mean gradient below which a voxel's gradient counts as noise and is not scaled up.
NOISE_SHARE = 0.3
#: A voxel whose place in the moving image counts less than this is ignored.
COUNTS = 0.1
#: Iterations in which the loss must fall by more than the tolerance.
STOPPING_WINDOW = 10
#: Most rounds of smoothing where the final field folds, and how far around the folds, in voxels.
REPAIRS, REPAIR_RADIUS = 30, 3


class Instance(Method):
    """Optimise the field of one pair, without training.

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
    >>> method = make_method("instance", {"similarity": "mse", "shrink": [2, 1], "iterations": [10, 10]})
    >>> found = method.register(fixed, moving)
    >>> before, after = (np.square(image.data - disc).mean() for image in (moving, found.field.warp(moving)))
    >>> bool(after < before / 2), found.inverse is None
    (True, False)
    """

    uses_masks: ClassVar[bool] = True
    uses_channels: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True
    gpu: ClassVar = True
    settings_type: ClassVar = InstanceSettings
    settings: InstanceSettings

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        self._unlikeness = similarity(self.settings)
        self._recorded: dict[tuple, _RecordedDescent] = {}

    @property
    def device(self) -> torch.device:
        return default_device()

    @property
    def label_weight(self) -> float:
        """Weight of the overlap of guiding labels, besides a similarity of weight 1."""
        return LABEL_WEIGHTS[self.settings.similarity]

    def register(
        self,
        fixed: Volume,
        moving: Volume,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
        channels: Sequence[Channel] = (),
        labels: GuidingLabels | None = None,
    ) -> Registration:
        shares = [1 - sum(channel.weight for channel in channels), *(channel.weight for channel in channels)]
        found = self.optimise(
            self._stacked([fixed, *(channel.fixed for channel in channels)]),
            self._stacked([moving, *(channel.moving for channel in channels)]),
            fixed.grid.spacing,
            self._stacked_masks([fixed_mask, *(channel.fixed_mask for channel in channels)], fixed),
            self._stacked_masks([moving_mask, *(channel.moving_mask for channel in channels)], moving),
            weights=shares,
            labels=None if labels is None else self._label_maps(labels),
            label_weight=None if labels is None else labels.weight,
        )
        return as_registration(*found, fixed, moving)

    def _stacked(self, images: Sequence[Volume]) -> Tensor:
        return torch.cat([as_tensor(image) for image in images], dim=1).to(self.device)

    def _stacked_masks(self, masks: Sequence[Volume | None], image: Volume) -> Tensor | None:
        """One mask for each channel; None if no image has one."""
        if all(mask is None for mask in masks):
            return None
        everything = image.with_data(np.ones(image.grid.shape, np.float32))
        return (self._stacked([mask or everything for mask in masks]) > 0).float()

    def _label_maps(self, labels: GuidingLabels) -> tuple[Tensor, Tensor]:
        maps = [torch.from_numpy(volume.data.astype("int64"))[None, None] for volume in (labels.fixed, labels.moving)]
        return maps[0].to(self.device), maps[1].to(self.device)

    def optimise(
        self,
        fixed: Tensor,
        moving: Tensor,
        spacing: np.ndarray,
        fixed_mask: Tensor | None = None,
        moving_mask: Tensor | None = None,
        *,
        weights: Sequence[float] | None = None,
        labels: tuple[Tensor, Tensor] | None = None,
        label_weight: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Find the displacement fixed → moving and its inverse.

        Parameters
        ----------
        fixed, moving : Tensor, shape (B, C, *space)
            Images on one grid. Channels are compared one by one.
        spacing : ndarray, shape (D,)
            Size of a voxel. Only ratios matter: levels are made as isotropic as possible.
        fixed_mask, moving_mask : Tensor, shape (B, 1 or C, *space), optional
            One where the image counts, zero where it is ignored: there the loss has no gradient, but the image still
            counts in the windows of neighbouring voxels.  The moving mask counts where the alignment puts it, and where
            the field puts it: alone, a mask that moves along would let voxels escape into it.
        weights : sequence of float, length C, optional
            Weight of each channel's similarity; only ratios matter. By default all are equal.
        labels : (Tensor of int, Tensor of int), each of shape (B, 1, *space), optional
            Label maps of both images. The soft Dice of the codes other than 0 that both have joins the similarity at
            every level. Masks do not hide labels.
        label_weight : float, optional
            Weight of one minus that Dice; by default the attribute of this name.

        Returns
        -------
        displacement, inverse : Tensor, shape (B, D, *space)
            In voxels.
        """
        kind = {"displacement": _Displacement, "velocity": _Velocity}[self.settings.transformation]
        transformation = kind(fixed)
        maps, codes = (None, 0) if labels is None else _shared(*labels)
        objective = _Objective(
            self._unlikeness,
            _shares(weights, fixed.shape[1]),
            codes,
            self.label_weight if label_weight is None else label_weight,
        )
        for factor, iterations in zip(self.settings.shrink, self.settings.iterations, strict=True):
            factors = np.maximum(factor * spacing.min() / spacing, 1)
            images = [_coarser(image, factors) for image in (fixed, moving)]
            masks = [mask if mask is None else _coarser(mask, factors) for mask in (fixed_mask, moving_mask)]
            transformation.move_to(images[0].shape[2:])
            if iterations:
                coarse = [_coarser_labels(indices, images[0].shape[2:]) for indices in maps or ()]
                self._descend(transformation, _Level(*images, *masks, *coarse), objective, iterations)
        return transformation.result(fixed.shape[2:])

    def _descend(
        self, transformation: "_Transformation", level: "_Level", objective: "_Objective", iterations: int
    ) -> None:
        descent = self._descent(transformation, level, objective)
        losses: list[Tensor] = []
        for _ in range(iterations):
            losses.append(descent.iterate())
            if _has_settled(losses, self.settings.tolerance):
                break
        transformation.field = descent.field

    def _descent(self, transformation: "_Transformation", level: "_Level", objective: "_Objective") -> "_Descent":
        """The descent at a level. A GPU reuses that of the previous pair, with its recording, if the grids match."""
        if not level.fixed.is_cuda:
            return _Descent(transformation, level, objective, self.settings)
        sizes = tuple(None if image is None else (image.shape, image.dtype) for image in level)
        key = (sizes, objective)
        if key not in self._recorded:
            if len(self._recorded) >= len(self.settings.shrink):  # these belong to images of other sizes
                self._recorded.clear()
            self._recorded[key] = _RecordedDescent(transformation, level, objective, self.settings)
        descent = self._recorded[key]
        descent.begin(transformation.field, level)
        return descent


class _Level(NamedTuple):
    """The pair at one resolution. Labels are indices, from :func:`regcore.kernels.label_dice.place`."""

    fixed: Tensor
    moving: Tensor
    fixed_mask: Tensor | None
    moving_mask: Tensor | None
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None

    def copied(self) -> "_Level":
        others = [None if image is None else image.clone() for image in self[2:]]
        return _Level(self.fixed.clone(), self.moving.clone(), *others)

    def warped(self, displacement: Tensor) -> Tensor:
        """The moving image warped, without a gradient where a mask is 0."""
        warped = warp(self.moving, displacement, border="edge")
        for mask in self._masks(displacement.detach()):
            warped = mask * warped + (1 - mask) * warped.detach()
        return warped

    def _masks(self, displacement: Tensor) -> Iterator[Tensor]:
        if self.fixed_mask is not None:
            yield self.fixed_mask
        if self.moving_mask is not None:
            there = warp(self.moving_mask, displacement, border="edge") > COUNTS
            yield torch.minimum(self.moving_mask, there.to(self.moving_mask.dtype))


class _Objective(NamedTuple):
    """What the steps lower: the unlikeness of the channels, and of the labels if there are any."""

    unlikeness: Unlikeness
    shares: tuple[float, ...]
    codes: int
    label_weight: float

    def loss(self, level: _Level, displacement: Tensor) -> Tensor:
        pairs = zip(self.shares, level.fixed.split(1, dim=1), level.warped(displacement).split(1, dim=1), strict=True)
        total = sum(share * self.unlikeness(fixed, warped) for share, fixed, warped in pairs)
        assert isinstance(total, Tensor)  # a sum of tensors: there is at least one channel
        if level.fixed_labels is not None and level.moving_labels is not None:
            overlap = soft_dice(level.fixed_labels, level.moving_labels, displacement, range(self.codes))
            total = total + self.label_weight * overlap
        return total


class _Descent:
    """The iterations at one level, which update tensors in place."""

    def __init__(
        self, transformation: "_Transformation", level: _Level, objective: _Objective, settings: InstanceSettings
    ):
        self.level, self.objective, self.settings = level, objective, settings
        self.transformation = transformation
        self.field = transformation.field.clone()
        self.momentum = _Momentum(settings.momentum, self.field)

    def iterate(self) -> Tensor:
        """Take one step; return the loss before it."""
        loss, gradient = self._gradient()
        direction = self.momentum.direction(smooth(gradient, self.settings.smooth_gradient))
        step = -self.settings.step * direction
        self.field.copy_(self._smoothed(self.transformation.moved(self.field, step)))
        return loss

    def _smoothed(self, field: Tensor) -> Tensor:
        if self.settings.prior is None:
            return smooth(field, self.settings.field_width)
        weight = beta_weight(squared_gradient(field), self.settings.alpha)
        return diffuse(field, weight, self.settings.field_width)

    def _gradient(self) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient with respect to the field."""
        parameters = self.field.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.objective.loss(self.level, self.transformation.displacement(parameters))
            (gradient,) = torch.autograd.grad(loss, parameters)
        return loss.detach(), gradient


class _RecordedDescent(_Descent):
    """A descent whose iteration is recorded on the GPU and replayed for every pair of images of these sizes."""

    def __init__(
        self, transformation: "_Transformation", level: _Level, objective: _Objective, settings: InstanceSettings
    ):
        super().__init__(copy.copy(transformation), level.copied(), objective, settings)
        self.transformation.field = self.field
        self._iteration = Recording(super().iterate)

    def begin(self, field: Tensor, level: _Level) -> None:
        """Start again from a field, with other images of the same sizes."""
        for kept, image in zip(self.level, level, strict=True):
            if kept is not None and image is not None:
                kept.copy_(image)
        self.field.copy_(field)
        self.momentum.reset()

    def iterate(self) -> Tensor:
        return self._iteration.replay().clone()


class _Momentum:
    """Running means of a gradient and its squared length, and the resulting direction."""

    def __init__(self, share: float, field: Tensor):
        self.share = share
        self.slow_share = 1 - (1 - share) / 10
        self.mean, self.square = torch.empty_like(field), torch.empty_like(field[:, :1])
        # The part of the running means that still comes from their initial zeros.
        self.unseen, self.slow_unseen = (field.new_empty((), dtype=torch.float64) for _ in range(2))
        self.reset()

    def reset(self) -> None:
        self.mean.zero_()
        self.square.zero_()
        self.unseen.fill_(1)
        self.slow_unseen.fill_(1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Vectors of length about 1 where gradients agree over time, shorter where they disagree or are weak."""
        square = gradient.square().sum(1, keepdim=True)
        self.mean.lerp_(gradient, 1 - self.share)
        self.square.lerp_(square, 1 - self.slow_share)
        self.unseen.mul_(self.share)
        self.slow_unseen.mul_(self.slow_share)
        size = (self.square / (1 - self.slow_unseen)).sqrt_()
        floor = NOISE_SHARE * size.mean(dim=tuple(range(1, size.ndim)), keepdim=True)
        tiny = torch.finfo(size.dtype).tiny  # without any gradient, nothing moves
        return (self.mean / (1 - self.unseen)) / (size + floor).clamp_min(tiny)


class _Transformation(ABC):
    """A field of parameters, on a grid that is refined with the levels."""

    def __init__(self, image: Tensor):
        batch, _, *space = image.shape
        self.field = image.new_zeros(batch, len(space), *(min(2, n) for n in space))

    @abstractmethod
    def move_to(self, shape: torch.Size) -> None:
        """Bring the field to the level whose images have this shape."""

    @abstractmethod
    def displacement(self, parameters: Tensor) -> Tensor:
        """The displacement on the images' grid, from the values of a field."""

    @abstractmethod
    def moved(self, field: Tensor, step: Tensor) -> Tensor:
        """The field after a step."""

    @abstractmethod
    def result(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The displacement and its inverse on a grid of this shape, without folds."""


class _Displacement(_Transformation):
    def move_to(self, shape: torch.Size) -> None:
        self.field = resample_displacement(self._sound(), shape)

    def displacement(self, parameters: Tensor) -> Tensor:
        return parameters

    def moved(self, field: Tensor, step: Tensor) -> Tensor:
        return compose(step, field)

    def result(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        self.field = resample_displacement(self.field, shape)
        displacement = self._sound()
        return displacement, invert(displacement)[0]

    def _sound(self) -> Tensor:
        return _unfolded(self.field, lambda field: (field,))


class _Velocity(_Transformation):
    shape: torch.Size

    def move_to(self, shape: torch.Size) -> None:
        self.shape = shape
        self.field = resample_displacement(self.field, [max(SMALLEST, -(-n // 2)) for n in shape])

    def displacement(self, parameters: Tensor) -> Tensor:
        return resample_displacement(integrate(parameters), self.shape)

    def moved(self, field: Tensor, step: Tensor) -> Tensor:
        return field + step

    def result(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        velocity = _unfolded(self.field, lambda field: self._both_ways(field, shape))
        return self._both_ways(velocity, shape)

    @staticmethod
    def _both_ways(velocity: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        forward, backward = (resample_displacement(integrate(sign * velocity), shape) for sign in (1, -1))
        return forward, backward


def _coarser(image: Tensor, factors: np.ndarray) -> Tensor:
    """Smooth and resample an image to voxels ``factors`` times as large, with at least ``SMALLEST`` per axis."""
    sizes = image.shape[2:]
    shape = [max(min(n, SMALLEST), round(n / factor)) for n, factor in zip(sizes, factors, strict=True)]
    if list(sizes) == shape:
        return image
    sigmas = [0.0 if n == small else 0.5 * n / small for n, small in zip(sizes, shape, strict=True)]
    return resample(smooth(image, sigmas), shape)


def _shares(weights: Sequence[float] | None, channels: int) -> tuple[float, ...]:
    """Weights with the sum 1."""
    given = [1.0] * channels if weights is None else [float(weight) for weight in weights]
    if len(given) != channels or min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise ValueError(f"weights must be one number, 0 or more, for each of {channels} channels, not {given}")
    return tuple(weight / sum(given) for weight in given)


def _shared(fixed: Tensor, moving: Tensor) -> tuple[tuple[Tensor, Tensor], int]:
    """Both label maps as indices of the codes that both have, and the number of these codes."""
    both = set(fixed.unique().tolist()) & set(moving.unique().tolist()) - {0}
    if not both:
        raise ValueError("the label maps have no code but 0 in common")
    codes = sorted(both)
    return (place(fixed, codes), place(moving, codes)), len(codes)


def _coarser_labels(labels: Tensor, shape: torch.Size) -> Tensor:
    """Labels on a coarser grid: of each voxel, the one at its centre.

    The most frequent label around it would guide no better, and take away small structures.
    """
    for axis, (old, new) in enumerate(zip(labels.shape[2:], shape, strict=True)):
        nearest = torch.linspace(0, old - 1, new, device=labels.device).round().long()
        labels = labels.index_select(2 + axis, nearest)
    return labels


def _has_settled(losses: list[Tensor], tolerance: float) -> bool:
    """Whether the last iterations hardly lowered the loss. Checked only now and then, because it makes a GPU wait."""
    if len(losses) < 2 * STOPPING_WINDOW or len(losses) % (STOPPING_WINDOW // 2):
        return False
    recent = torch.stack(losses[-2 * STOPPING_WINDOW :]).view(2, -1).mean(1).tolist()
    return recent[0] - recent[1] < tolerance * abs(recent[0])


def _unfolded(field: Tensor, displacements: Callable[[Tensor], tuple[Tensor, ...]]) -> Tensor:
    """The field, smoothed only where its displacements fold, until they no longer do.

    Parameters
    ----------
    displacements : callable
        Field → displacements that must not fold, on grids of any resolution.
    """
    for _ in range(REPAIRS):
        folded = sum(_fold_map(displacement, field.shape[2:]) for displacement in displacements(field))
        assert isinstance(folded, Tensor)  # a sum of tensors: there is at least one displacement
        if not folded.any():
            break
        # Wide enough to include the neighbours that form the fold, with a smooth edge.
        weight = smooth(_dilated((folded > 0).to(field.dtype), REPAIR_RADIUS), 1.0)
        field = torch.lerp(field, smooth(field, 1.0), weight)
    return field


def _fold_map(displacement: Tensor, shape: torch.Size) -> Tensor:
    """Where, on a grid of ``shape``, the displacement folds: (B, 1, *shape), above 0."""
    folded = (jacobian_determinant(displacement) <= 0).to(displacement.dtype).unsqueeze(1)
    if not folded.any() or folded.shape[2:] == shape:
        return folded if folded.shape[2:] == shape else folded.new_zeros(*folded.shape[:2], *shape)
    return resample(_dilated(folded, 1), shape)


def _dilated(mask: Tensor, radius: int) -> Tensor:
    """A mask of 0 and 1, (B, 1, *space), grown by ``radius`` voxels along every axis."""
    pool = {2: F.max_pool2d, 3: F.max_pool3d}[mask.ndim - 2]
    return pool(mask, 2 * radius + 1, stride=1, padding=radius)
