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
    """VoxelMorph, unsupervised or with auxiliary segmentations; displacement or velocity.

    See [1]_, and [2]_ for velocities, here without a probabilistic objective.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019.
    .. [2] Dalca, Balakrishnan, Guttag and Sabuncu, "Unsupervised learning of probabilistic diffeomorphic registration
       for images and surfaces", Med. Image Anal. 57:226-236, 2019.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods import make_method
    >>> method = make_method("voxelmorph", {"preset": "paper", "similarity": "mse"})
    >>> network = method.build(ndim=2)
    >>> batch = {"fixed": torch.rand(2, 1, 32, 32), "moving": torch.rand(2, 1, 32, 32)}
    >>> losses = method.training_step(network, batch)
    >>> sorted(losses), losses["total"].requires_grad
    (['diffusion', 'mse', 'total'], True)
    """

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
    """Weight of each term of the objective, for a batch with or without labels.

    Parameters
    ----------
    settings : VoxelMorphObjectiveSettings
        ``lambda``, ``gamma``, ``weighting`` and ``smoothness``.
    with_labels : bool
        Whether the batch has labels.

    Returns
    -------
    dict of str → float
        For the similarity, ``diffusion`` and ``label_dice``.

    Examples
    --------
    >>> from regcore.methods import read_settings
    >>> from regcore.methods.voxelmorph import weights_of_terms
    >>> settings = {"similarity": "mse", "lambda": 0.2, "gamma": 0.5}
    >>> weights_of_terms(read_settings("voxelmorph", settings), with_labels=True)
    {'mse': 1, 'diffusion': 0.2, 'label_dice': 0.5}
    >>> weights_of_terms(read_settings("voxelmorph", {**settings, "weighting": "convex"}), with_labels=True)
    {'mse': 0.4, 'diffusion': 0.2, 'label_dice': 0.4}
    """
    amount, gamma = settings.lambda_, settings.overlap_weight
    assert amount is not None  # set when the settings were read, or the value of a hypernetwork's hyperparameter
    if settings.weighting == "convex":
        gamma = gamma if with_labels else 0
        image, smoothness, overlap = (1 - amount) * (1 - gamma), amount, (1 - amount) * gamma
    else:
        image, smoothness, overlap = 1, amount, gamma
    return {settings.similarity: image, "diffusion": smoothness * settings.smoothness, "label_dice": overlap}
