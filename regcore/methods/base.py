"""The contract of a method: a pair of images in, a displacement field on the fixed grid out.

After :meth:`Method.register` it makes no difference whether a classical tool, a network or an optimiser made the
field.  Learned methods add what the trainer needs: a module, the field it predicts, and its losses.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from regcore.errors import InputError
from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.training import TrainingSettings


@dataclass(frozen=True, eq=False)
class Registration:
    """The result of a method.

    Parameters
    ----------
    field : DisplacementField
        Fixed world → moving world, on the fixed grid.
    inverse : DisplacementField or None
        Moving → fixed on the moving grid, if the method has one.
    commands : list of str
        The exact calls of an external tool.
    tool : str or None
        Name and version of that tool.
    choices : dict
        What the method chose for this pair, for the record: name → number, text or None.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.base import Registration
    >>> image = Volume(np.eye(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> found = Registration(DisplacementField.identity(image.grid))
    >>> np.array_equal(found.field.warp(image).data, image.data), found.inverse
    (True, None)
    """

    field: DisplacementField
    inverse: DisplacementField | None = None
    commands: list[str] = dataclass_field(default_factory=list)
    tool: str | None = None
    choices: dict[str, Any] = dataclass_field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Channel:
    """A further pair of images of the same two subjects, on the grid of the first pair and in register with it.

    Parameters
    ----------
    fixed, moving : Volume
        Intensities 0 to 1.
    weight : float
        Its share of the similarity. The first pair has what is left of 1.
    fixed_mask, moving_mask : Volume or None
        Zero where the image of this channel is to be ignored.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.base import Channel
    >>> image = Volume(np.eye(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> Channel(image, image, weight=0.25).fixed_mask is None
    True
    """

    fixed: Volume
    moving: Volume
    weight: float
    fixed_mask: Volume | None = None
    moving_mask: Volume | None = None


@dataclass(frozen=True, eq=False)
class GuidingLabels:
    """Label maps of both images, whose overlap a registration is to raise.

    Parameters
    ----------
    fixed, moving : Volume
        Of integers, on the images' grid. Codes other than 0 that both have count.
    weight : float or None
        Weight of the overlap besides a similarity of weight 1; None: the method's ``label_weight``.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.base import GuidingLabels
    >>> labels = Volume(np.eye(8, dtype=np.int32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> GuidingLabels(labels, labels).weight is None
    True
    """

    fixed: Volume
    moving: Volume
    weight: float | None = None


class Method(ABC):
    """A method with checked settings.

    Parameters
    ----------
    settings : mapping or MethodSettings
        Key → value, unchecked, or the result of :meth:`MethodSettings.read`.
    where : str
        Name of the settings in messages.

    Attributes
    ----------
    settings_type : type
        Class of the settings.
    learned, refines, external, imported, pretrained, uses_masks, uses_channels, uses_labels, dimensions, gpu
        As in :class:`regcore.methods.MethodInfo`, from which studies are planned.
    aligned : bool
        Whether the method sees the scans aligned. If not, it gets them where their headers place them.

    Raises
    ------
    InputError
        A setting is unknown or invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.base import Method, Registration
    >>> from regcore.methods.settings.base import MethodSettings
    >>> class ShiftSettings(MethodSettings):
    ...     voxels: float = 1
    >>> class Shift(Method):
    ...     settings_type = ShiftSettings
    ...
    ...     def register(self, fixed, moving):
    ...         field = DisplacementField.identity(fixed.grid)
    ...         field.displacement[:, 0] = self.settings.voxels
    ...         return Registration(field)
    >>> image = Volume(np.eye(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> found = Shift({"voxels": 2}).register(image, image)
    >>> bool((found.field.warp(image).data[:-2] == image.data[2:]).all())  # it pulls
    True
    """

    settings_type: ClassVar[type[MethodSettings]]
    learned: ClassVar[bool] = False
    refines: ClassVar[bool] = False
    external: ClassVar[bool] = False
    imported: ClassVar[bool] = False
    pretrained: ClassVar[bool] = False
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    gpu: ClassVar[bool] = False
    uses_masks: ClassVar[bool] = False
    uses_channels: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = False
    aligned: ClassVar[bool] = True

    settings: MethodSettings

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        if not isinstance(settings, MethodSettings):
            settings = self.settings_type.read(settings, where)
        self.settings = settings

    @property
    def device(self) -> torch.device:
        """Device on which the method computes."""
        return torch.device("cpu")

    @abstractmethod
    def register(self, fixed: Volume, moving: Volume) -> Registration:
        """Find the field that warps ``moving`` onto ``fixed``; intensities are normalised to 0 ... 1.

        A method that uses masks also takes ``fixed_mask`` and ``moving_mask``: volumes on the same grid or None, zero
        where the image is to be ignored.  One that uses channels takes ``channels``, a sequence of :class:`Channel`.
        One that uses labels takes ``labels``, a :class:`GuidingLabels` or None.
        """

    @property
    def label_weight(self) -> float:
        """Default weight of the overlap of guiding labels, for a method that uses labels."""
        raise NotImplementedError(f"{type(self).__name__} uses no labels")


class LearnedMethod(Method):
    """A method that is a network.

    The network predicts a *flow*: the displacement, or something the displacement is computed from (a velocity, a
    field at lower resolution).  Losses are a function of flow and batch, so that the same objective trains the
    network and refines its prediction on single pairs.

    :meth:`build` makes ``module``; the trainer moves, trains and loads it.

    Parameters
    ----------
    settings : mapping or MethodSettings
        As for :class:`Method`.
    where : str
        Name of the settings in messages.

    Raises
    ------
    InputError
        A setting is unknown or invalid, or a step with these settings cannot be recorded.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods import make_method
    >>> method = make_method("voxelmorph", {"similarity": "mse"})
    >>> network = method.build(ndim=2)
    >>> batch = {"fixed": torch.rand(1, 1, 32, 24), "moving": torch.rand(1, 1, 32, 24)}
    >>> flow = method.predict(network, batch["fixed"], batch["moving"])
    >>> tuple(flow.shape), tuple(method.displacement(flow, batch["fixed"]).shape)  # padded, at half resolution
    ((1, 2, 16, 16), (1, 2, 32, 24))
    >>> sorted(method.losses(flow, batch))
    ['diffusion', 'mse', 'total']
    """

    learned: ClassVar[bool] = True
    settings: TrainingSettings
    module: nn.Module | None = None

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        if self.settings.record and not self.recordable:
            raise InputError(
                f"{where}: 'record' does not work with these settings: a step draws random numbers on the CPU, or uses "
                "checkpoints"
            )

    @property
    def observed(self) -> Any:
        """The labels that training uses, or None if it uses only images."""
        return None

    @property
    def observed_draw(self) -> int:
        """Number of the draw of labels, if ``observed`` is half of them or one."""
        return 1

    @property
    def recordable(self) -> bool:
        """Whether a training step takes nothing from the CPU that changes between steps except its batch.

        It must not use activation checkpoints either, because they restore the state of random numbers.
        """
        return False

    @property
    def compares_images(self) -> bool:
        """Whether its loss is defined without labels, so that predictions can be refined."""
        return True

    @property
    def hyperparameters(self) -> list[str]:
        """The settings that are inputs of the network and can change after training; most methods have none."""
        return []

    @property
    def values(self) -> dict[str, float | None]:
        """The hyperparameters to register with; None where no value is chosen."""
        return {name: self.settings.value(name) for name in self.hyperparameters}

    def variants_to_validate(self) -> Sequence["LearnedMethod"]:
        """The methods that a validation averages over: this one, or this one at several hyperparameters."""
        return [self]

    @property
    def stride(self) -> int:
        """Images are padded to a multiple of this size for the network."""
        return 1

    def fit_to(self, shape: Sequence[int]) -> None:
        """Fill in settings of the network that follow from the size of the training images.

        Raises
        ------
        InputError
            A given setting does not fit images of ``shape``.
        """

    @abstractmethod
    def build(self, ndim: int) -> nn.Module:
        """Make the untrained network for ``ndim`` dimensions; its weights follow torch's seed."""

    @abstractmethod
    def predict(self, module: Callable[[Tensor], Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        """Flow of image pairs, float32.

        Parameters
        ----------
        module : callable
            The network from :meth:`build`, possibly wrapped. Only call it: its attributes may be hidden.
        fixed, moving : Tensor, shape (B, 1, *space)
        """

    def refinable(self, flow: Tensor) -> Tensor:
        """The part of a prediction that refinement optimises: a flow as for :meth:`losses`."""
        return flow

    @abstractmethod
    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses by name; ``total`` is what is minimised.

        Parameters
        ----------
        batch : mapping
            ``fixed`` and ``moving`` images, (B, 1, *space).  If ``observed`` is not None, also integer
            ``fixed_labels`` and ``moving_labels``, (B, 1, *space), and ``codes``, the list of the codes that
            count.
        """

    @abstractmethod
    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        """Displacement fixed → moving in voxels, (B, D, *space) like ``image``."""

    @abstractmethod
    def displacements(self, flow: Tensor, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """:meth:`displacement`, and its inverse if there is one."""

    def training_step(self, module: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of the network's prediction for a batch."""
        return self.losses(self.predict(module, batch["fixed"], batch["moving"]), batch)

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        device = self.device
        images = [as_tensor(volume).to(device) for volume in (fixed, moving)]
        with torch.inference_mode():
            found = self.displacements(self.predict(self.network, *images), images[0])
        return as_registration(*found, fixed, moving)

    @property
    def network(self) -> nn.Module:
        """``module``, where there has to be one.

        Raises
        ------
        RuntimeError
            There is no network yet.
        """
        if self.module is None:
            raise RuntimeError("a learned method registers only after its weights are loaded")
        return self.module

    @property
    def device(self) -> torch.device:
        """Device of the network.

        Raises
        ------
        RuntimeError
            There is no network yet.
        """
        return next(self.network.parameters()).device


def as_registration(forward: Tensor, inverse: Tensor | None, fixed: Volume, moving: Volume) -> Registration:
    """A registration from tensors, on the grids of the two images.

    Parameters
    ----------
    forward : Tensor, shape (1, D, *space)
        Displacement fixed → moving, in voxels of the fixed grid, on any device.
    inverse : Tensor, shape (1, D, *space), or None
        Displacement moving → fixed, in voxels of the moving grid.
    fixed, moving : Volume
        The images.

    Returns
    -------
    Registration
        On the CPU, with copies of the tensors.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.base import as_registration
    >>> image = Volume(np.zeros((8, 6), np.float32), Grid.centred((8, 6), (1, 1), (0, 0)))
    >>> found = as_registration(torch.zeros(1, 2, 8, 6), None, image, image)
    >>> found.field.grid.shape, found.inverse
    ((8, 6), None)
    """
    return Registration(
        DisplacementField(forward.cpu().clone(), fixed.grid),
        None if inverse is None else DisplacementField(inverse.cpu().clone(), moving.grid),
    )


def as_tensor(volume: Volume) -> Tensor:
    """Image values as a tensor.

    Parameters
    ----------
    volume : Volume
        Its values may be of any type.

    Returns
    -------
    Tensor of float32, shape (1, 1, *space)
        A copy, on the CPU.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.base import as_tensor
    >>> tensor = as_tensor(Volume(np.eye(4, dtype=np.int16), Grid.centred((4, 4), (1, 1), (0, 0))))
    >>> tuple(tensor.shape), tensor.dtype
    ((1, 1, 4, 4), torch.float32)
    """
    return torch.from_numpy(volume.data.astype("float32"))[None, None]
