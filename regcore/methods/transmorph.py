"""TransMorph with a diffeomorphic field composed of several steps (Chen et al., 2022), the backbone of TM-SPR.

The objective is VoxelMorph's.  The network differs, and the smoothness term acts on the displacement at full
resolution, as in the authors' code.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from regcore.errors import InputError
from regcore.losses import diffusion
from regcore.methods.objective import ObjectiveMethod
from regcore.methods.settings.transmorph import TransMorphNetworkSettings, TransMorphSettings
from regcore.methods.voxelmorph import weights_of_terms
from regcore.networks.transmorph import TransMorphDesign, window_for


class TransMorph(ObjectiveMethod):
    """A Swin transformer and a convolutional decoder predict a velocity at half resolution.

    The network is that of [1]_; its flow is composed of several steps.

    References
    ----------
    .. [1] Chen, Frey, He, Segars, Li and Du, "TransMorph: Transformer for unsupervised medical image registration",
       Med. Image Anal. 82:102615, 2022.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods import make_method
    >>> method = make_method("transmorph", {"similarity": "mse", "size": "tiny"})
    >>> method.fit_to((32, 32))
    >>> network = method.build(ndim=2).eval()
    >>> fixed, moving = torch.rand(2, 1, 1, 32, 32)
    >>> tuple(method.predict(network, fixed, moving).shape)
    (1, 2, 16, 16)
    """

    settings_type: ClassVar = TransMorphSettings
    settings: TransMorphSettings

    @property
    def design(self) -> TransMorphDesign:
        return transmorph_design(self.settings)

    def fit_to(self, shape: Sequence[int]) -> None:
        self.settings.attention = settled_attention(self.settings.attention, shape)

    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"diffusion": diffusion(deformed["displacement"])}

    def _weights(self, with_labels: bool) -> dict[str, float]:
        return weights_of_terms(self.settings, with_labels)


def transmorph_design(settings: TransMorphNetworkSettings) -> TransMorphDesign:
    """The network for some settings."""
    return TransMorphDesign(
        window=settings.attention,
        size=settings.size,
        steps=settings.time_steps,
        compose=settings.compose,
        norm=settings.norm,
        drop_path=settings.drop_path,
        keeps_checkpoints=settings.checkpointing,
    )


def settled_attention(window: list[int] | None, shape: Sequence[int]) -> list[int]:
    """The window of attention for images of ``shape``: the given one if it fits, or the default.

    Parameters
    ----------
    window : list of int or None
        The setting ``attention``: tokens along each axis.
    shape : sequence of int
        Voxels of the images.

    Returns
    -------
    list of int

    Raises
    ------
    InputError
        The window has another number of axes.

    Examples
    --------
    >>> from regcore.methods.transmorph import settled_attention
    >>> settled_attention(None, shape=(160, 192, 224)), settled_attention([4, 4], shape=(64, 64))
    ([5, 6, 7], [4, 4])
    """
    if window is None:
        return window_for(shape)
    if len(window) != len(shape):
        raise InputError(f"'attention: {window}' must have {len(shape)} numbers, as many as images have axes")
    return window
