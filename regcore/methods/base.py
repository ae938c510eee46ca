"""The contract of a method: a pair of images in, a displacement field on the fixed grid out.

From :meth:`Method.register` on nobody knows whether a classical tool, a network or an optimiser made the
field.  Learned methods add what the trainer needs: a module, the field it predicts, and its losses.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from regcore.errors import InputError
from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.settings.validation import settings_schema, validated

#: Settings that the trainer reads; every learned method has them.
TRAINING = {
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
    "accumulate": {
        "description": "parts that a batch is cut into, one after the other: less memory, the same gradient",
        "type": "integer",
        "minimum": 1,
        "default": 1,
    },
    "optimiser": {
        "description": "adam (the papers), or muon: the updates of convolutions are orthogonal matrices",
        "enum": ["adam", "muon"],
        "default": "adam",
    },
    "learning_rate": {
        "description": "of the optimiser",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1e-4,
    },
    "schedule": {
        "description": "learning rate over the steps: constant (the paper), a cosine that ends at zero, or plateau: a "
        "fifth whenever patience is at its end, and once more training ends after 'drops' of these",
        "enum": ["constant", "cosine", "plateau"],
        "default": "constant",
    },
    "drops": {
        "description": "how often the rate drops with 'schedule: plateau'",
        "type": "integer",
        "minimum": 0,
        "default": 2,
    },
    "validate_every": {
        "description": "steps between two looks at the validation pairs and two checkpoints",
        "type": "integer",
        "minimum": 1,
        "default": 1000,
    },
    "patience": {
        "description": "looks at the validation pairs without a better score after which training stops; null: never",
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
    },
    "select": {
        "description": "what the look at the validation pairs goes by: dice (mean Dice), or loss (the method's own; a "
        "convergence that does not depend on labels)",
        "enum": ["dice", "loss"],
        "default": "dice",
    },
    "tolerance": {
        "description": "share of the best score so far by which a look has to be better for patience to begin anew",
        "type": "number",
        "minimum": 0,
        "default": 0,
    },
    "precision": {
        "description": "of the network's arithmetic: float32, or bfloat16 (faster on GPUs; losses, fields and weights "
        "stay float32)",
        "enum": ["float32", "bfloat16"],
        "default": "float32",
    },
    "compile": {
        "description": "run the network through torch.compile: a slow start, then faster steps on GPUs",
        "type": "boolean",
        "default": False,
    },
    "record": {
        "description": "on a GPU, record a step as a CUDA graph and replay it, so that no kernel waits for Python; for "
        "steps that draw nothing at random, and images of one size",
        "type": "boolean",
        "default": False,
    },
    "replicate": {
        "description": "which of several trainings that differ in nothing but the random start and the order of pairs",
        "type": "integer",
        "minimum": 1,
        "default": 1,
    },
    "training_subjects": {
        "description": "train on so many of the training subjects, drawn by the study's seed; null: on all",
        "type": ["integer", "null"],
        "minimum": 2,
        "default": None,
    },
    "training_contrasts": {
        "description": "train on these pairings of contrasts, [[fixed, moving], ...], and choose the weights on "
        "validation pairs of them; null: those of the study",
        "type": ["array", "null"],
        "minItems": 1,
        "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string"}},
        "default": None,
    },
}


@dataclass(frozen=True, eq=False)
class Registration:
    """What a method found.

    Parameters
    ----------
    field : DisplacementField
        Fixed world → moving world, on the fixed grid.
    inverse : DisplacementField or None
        Moving → fixed on the moving grid, where the method has one.
    commands : list of str
        The exact calls of a tool that is not ours.
    tool : str or None
        Its name and version.
    """

    field: DisplacementField
    inverse: DisplacementField | None = None
    commands: list[str] = field(default_factory=list)
    tool: str | None = None


class Method(ABC):
    """A method with checked settings.

    ``properties`` is the JSON schema of the settings, under the names of the method's paper; every one
    has a default.  A method with ``presets`` has the setting ``preset``, which changes defaults; what is
    given beside it stands.  ``aligned`` says whether the affine alignment of the scans is part of the
    result.
    """

    properties: ClassVar[dict] = {}
    presets: ClassVar[dict[str, dict]] = {}
    aligned: ClassVar[bool] = True
    uses_masks: ClassVar[bool] = False

    def __init__(self, settings: Mapping, where: str = "method"):
        preset = settings.get("preset")
        defaults = self.presets.get(preset, {}) if isinstance(preset, str) else {}
        self.settings = validated({**defaults, **settings}, settings_schema(self.properties), where)

    @property
    def device(self) -> torch.device:
        """Where the method computes."""
        return torch.device("cpu")

    @abstractmethod
    def register(self, fixed: Volume, moving: Volume) -> Registration:
        """Find the field that pulls ``moving`` onto ``fixed``; intensities are normalised (0 to 1)."""


class LearnedMethod(Method):
    """A method that is a network.

    The network predicts a *flow*: the displacement, or what the displacement is computed from (a
    velocity, a field at lower resolution).  Losses are a function of flow and batch, so that the same
    objective trains the network and, pair by pair, refines its prediction.

    ``module`` is made by :meth:`build` and moved, trained and loaded by the trainer.
    """

    module: nn.Module | None = None

    def __init__(self, settings: Mapping, where: str = "method"):
        super().__init__(settings, where)
        if self.settings["schedule"] == "plateau" and self.settings["patience"] is None:
            raise InputError(f"{where}: 'schedule: plateau' needs 'patience', the number of looks that make a plateau")
        if self.settings["record"] and not self.recordable:
            raise InputError(
                f"{where}: 'record' cannot be had with these settings: a step draws at random on the CPU, or keeps "
                "checkpoints"
            )

    @property
    def observed(self) -> Any:
        """The labels that training looks at, or None where it looks at images alone."""
        return None

    @property
    def recordable(self) -> bool:
        """Whether a training step asks the CPU for nothing that changes from step to step but its batch.

        Nor may it keep checkpoints, which put the state of random numbers back.
        """
        return False

    @property
    def compares_images(self) -> bool:
        """Whether its loss exists for a pair without labels, so that its prediction can be refined."""
        return True

    @property
    def hyperparameters(self) -> list[str]:
        """The settings that the network is told and can be changed after training; most have none."""
        return []

    @property
    def values(self) -> dict[str, float | None]:
        """The hyperparameters to register with; None where none is chosen."""
        return {name: self.settings[name] for name in self.hyperparameters}

    def looks(self) -> Sequence["LearnedMethod"]:
        """What a look at the validation pairs averages over: the method alone, or at several hyperparameters."""
        return [self]

    @property
    def unused(self) -> set[str]:
        """Settings that change nothing beside the others."""
        return set()

    def settle(self, shape: Sequence[int]) -> None:
        """Fill in settings of the network that follow from the size of the training's images.

        Raises
        ------
        InputError
            A setting that is given does not fit images of ``shape``.
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
            What :meth:`build` made, perhaps wrapped: only to be called, its attributes may be hidden.
        fixed, moving : Tensor, shape (B, 1, *space)
        """

    def refinable(self, flow: Tensor) -> Tensor:
        """What refining a prediction pair by pair changes of it: a flow that :meth:`losses` takes."""
        return flow

    @abstractmethod
    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses by name; ``total`` is what is minimised.

        Parameters
        ----------
        batch : mapping
            ``fixed`` and ``moving`` images, (B, 1, *space).  Where ``observed`` is not None also
            ``fixed_labels`` and ``moving_labels`` of integers, (B, 1, *space), and ``codes``, the list of
            the codes in them that count.
        """

    @abstractmethod
    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        """Displacement fixed → moving in voxels, (B, D, *space) like ``image``."""

    @abstractmethod
    def displacements(self, flow: Tensor, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """:meth:`displacement`, and its inverse where there is one."""

    def training_step(self, module: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of the network's prediction for a batch."""
        return self.losses(self.predict(module, batch["fixed"], batch["moving"]), batch)

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        device = self.device
        images = [as_tensor(volume).to(device) for volume in (fixed, moving)]
        with torch.inference_mode():
            found = self.displacements(self.predict(self.module, *images), images[0])
        return as_registration(*found, fixed, moving)

    @property
    def device(self) -> torch.device:
        """Where the network is.

        Raises
        ------
        RuntimeError
            There is none yet.
        """
        if self.module is None:
            raise RuntimeError("a learned method registers only after its weights are loaded")
        return next(self.module.parameters()).device


def as_registration(forward: Tensor, inverse: Tensor | None, fixed: Volume, moving: Volume) -> Registration:
    """What a method found as tensors (1, D, *space) in voxels, on the grids of the two images."""
    return Registration(
        DisplacementField(forward.cpu().clone(), fixed.grid),
        None if inverse is None else DisplacementField(inverse.cpu().clone(), moving.grid),
    )


def as_tensor(volume: Volume) -> Tensor:
    """Image values as (1, 1, *space) float32."""
    return torch.from_numpy(volume.data.astype("float32"))[None, None]
