"""How much a network's features change with the contrast of an image, for the same anatomy.

Experiment 2 of SynthMorph (Hoffmann et al., TMI 2022), Section III-F, Fig. 12.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.networks.unet import UNet


def feature_variability(unet: UNet, series: Iterable[Sequence[Tensor]]) -> np.ndarray:
    """Root-mean-square differences of the output of every convolution.

    Parameters
    ----------
    unet : UNet
        Its weights are not changed.
    series : iterable of sequences of Tensor, shape (1, C, *space)
        For each pair of subjects the inputs of the network, with the moving image in two or more contrasts.  The others
        are compared with the first (the most T1-weighted in the paper).  Sizes are multiples of the network's stride.

    Returns
    -------
    ndarray, shape (layers, 2)
        First the paper's difference d [1]_: the mean, over contrasts, features and pairs of subjects, of the root mean
        square over space.  Then d relative to the root mean square of the features, which does not depend on their
        scale.  Layers are in the order of computation.

    Raises
    ------
    ValueError
        A series has fewer than two contrasts, or there is none.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation.variability import feature_variability
    >>> from regcore.networks.unet import UNet
    >>> network = UNet(ndim=2)
    >>> same = [torch.ones(1, 2, 16, 16), torch.ones(1, 2, 16, 16)]
    >>> feature_variability(network, [same]).max().item()
    0.0
    """
    found = []
    for images in series:
        if len(images) < 2:
            raise ValueError("the variability of features needs two or more contrasts")
        first, *others = (_features(unet, image) for image in images)
        size = [_over_space(layer) for layer in first]
        changed = [
            torch.stack([_over_space(own - layer) for own in layers]).mean(0)
            for layer, *layers in zip(first, *others, strict=True)
        ]
        tiny = torch.finfo(size[0].dtype).tiny
        found.append(
            [
                (float(change.mean()), float(change.mean() / own.mean().clamp(min=tiny)))
                for change, own in zip(changed, size, strict=True)
            ]
        )
    if not found:
        raise ValueError("there is no series of contrasts")
    return np.mean(found, axis=0)


def _features(unet: UNet, pair: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    with torch.inference_mode():
        unet(pair, seen)
    return seen


def _over_space(features: Tensor) -> Tensor:
    """Root mean square of each feature (1, C, *space)."""
    return features.flatten(2).square().mean(2).sqrt()
