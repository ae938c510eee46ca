"""VoxelMorph's objective, also used by TransMorph and TM-SPR: similarity, smoothness and labels.

Similarity plus λ times the smoothness of the field (Eq. 4 of VoxelMorph, TMI 2019), and with segmentations γ times the
overlap of warped labels (Eq. 10).
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from regcore.losses import soft_dice
from regcore.methods.flow import FlowMethod
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.objective import ObjectiveSettings
from regcore.methods.similarity import similarity
from regcore.spatial import warp
from regcore.synthesis import augmentation
from regcore.synthesis.noise import random_generator


class ObjectiveMethod(FlowMethod):
    """A method that trains its flow with VoxelMorph's objective."""

    settings: ObjectiveSettings

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        self._unlikeness = self._similarity()

    @property
    def observed(self) -> Any:
        return self.settings.observed if self.settings.gamma != 0 else None

    @property
    def observed_draw(self) -> int:
        return self.settings.observed_draw

    @property
    def recordable(self) -> bool:
        drawn = self.settings.augmentation is not None or self.settings.flips or self.settings.passes > 1
        return not drawn and not self.design.keeps_checkpoints

    @property
    def compares_images(self) -> bool:
        return not self.settings.labels_alone

    def training_step(self, module: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of the network's prediction for a batch, augmented from torch's global random state."""
        batch, seen = self.augmented(batch)
        return self.losses(self.predict_in_training(module, seen["fixed"], seen["moving"]), batch)

    def augmented(self, batch: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The images for the losses, and the images for the network."""
        kind = self.settings.augmentation
        if kind is None and not self.settings.flips:
            return batch, batch
        draws = random_generator(batch["fixed"].device)
        if self.settings.flips:
            batch = augmentation.flipped(batch, draws)
        if kind == "deformations":
            batch = augmentation.deformed(batch, draws)
        if kind == "contrasts":
            return batch, {side: augmentation.recoloured(batch[side], draws) for side in augmentation.SIDES}
        return batch, batch

    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.losses_of(flow, batch, self.deformed(flow, batch))

    def deformed(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Inputs of the losses: the displacement, the warped moving image, and the fixed image warped back."""
        fixed, moving = batch["fixed"], batch["moving"]
        found = {"displacement": self.displacement(flow, fixed)}
        if not self.settings.labels_alone:
            found["warped"] = warp(moving, found["displacement"])
            if self.settings.bidirectional:
                found["warped_back"] = warp(fixed, self.displacement(-flow, fixed))
        return found

    def losses_of(self, flow: Tensor, batch: Mapping[str, Any], deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`losses` from the result of :meth:`deformed`."""
        found: dict[str, Tensor] = {}
        if "warped" in deformed:
            unlikeness = self._unlikeness(batch["fixed"], deformed["warped"])
            if "warped_back" in deformed:
                unlikeness = 0.5 * (unlikeness + self._unlikeness(batch["moving"], deformed["warped_back"]))
            found |= {self.settings.similarity: unlikeness, **self._terms(flow, deformed)}
        if "codes" in batch:
            labels = batch["fixed_labels"], batch["moving_labels"]
            found["label_dice"] = soft_dice(*labels, deformed["displacement"], batch["codes"])
        return {"total": self._total(found), **found}

    @abstractmethod
    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The smoothness term."""

    def _total(self, found: Mapping[str, Tensor]) -> Tensor:
        weights = self._weights("label_dice" in found)
        total = sum(weights[name] * value for name, value in found.items())
        assert isinstance(total, Tensor)  # a sum of tensors: there is at least one term
        return total

    @abstractmethod
    def _weights(self, with_labels: bool) -> dict[str, float]:
        """Weight of each term."""

    def _similarity(self) -> Callable[[Tensor, Tensor], Tensor]:
        return similarity(self.settings, "voxelmorph", self.settings.image_sigma)
