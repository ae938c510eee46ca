"""VoxelMorph (Balakrishnan et al., TMI 2019), and its diffeomorphic variant (Dalca et al., MedIA 2019).

A U-Net predicts a flow from the pair: the displacement itself (the paper), or a stationary velocity, which is
integrated by scaling and squaring (the authors' current code).  The smoothness term acts on the flow at the
resolution at which it is used.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from regcore.losses import diffusion
from regcore.methods.flow import unet_design
from regcore.methods.objective import ObjectiveMethod
from regcore.methods.settings.voxelmorph import VoxelMorphObjectiveSettings, VoxelMorphSettings
from regcore.networks.unet import UNetDesign


class VoxelMorph(ObjectiveMethod):
    """VoxelMorph, unsupervised or with auxiliary segmentations; displacement or velocity."""

    settings_type: ClassVar = VoxelMorphSettings
    settings: VoxelMorphSettings

    @property
    def design(self) -> UNetDesign:
        return unet_design(self.settings, self.settings.input)

    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"diffusion": diffusion(flow)}

    def _weights(self, with_labels: bool) -> dict[str, float]:
        return weights_of_terms(self.settings, with_labels)


def weights_of_terms(settings: VoxelMorphObjectiveSettings, with_labels: bool) -> dict[str, float]:
    """Weight of each term of the objective, for a batch with or without labels."""
    amount, gamma = settings.lambda_, settings.overlap_weight
    assert amount is not None  # set when the settings were read, or the value of a hypernetwork's hyperparameter
    if settings.weighting == "convex":
        gamma = gamma if with_labels else 0
        image, smoothness, overlap = (1 - amount) * (1 - gamma), amount, (1 - amount) * gamma
    else:
        image, smoothness, overlap = 1, amount, gamma
    return {settings.similarity: image, "diffusion": smoothness * settings.smoothness, "label_dice": overlap}
