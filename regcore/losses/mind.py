"""Similarity of the local structure of two images of any contrast: self-similarity descriptors."""

from torch import Tensor

from regcore.checks import describe, require_finite_loss, require_image, require_same_shape
from regcore.kernels import mind_ssc as kernel
from regcore.kernels.mind_ssc.reference import descriptor


def mind_ssc_descriptor(image: Tensor, radius: int = 2, dilation: int = 2) -> Tensor:
    """Self-similarity context of every voxel (MIND-SSC [1]_).

    For each pair (a, b) of face neighbours at a right angle to each other, with d the dilation::

        S_ab(p) = mean of (I(q + d a) − I(q + d b))² over the patch of voxels q around p
        V(p)    = mean over pairs of S_ab(p) − min S(p), clamped to 0.001 to 1000 times its mean over p
        MIND(p) = exp(−(S_ab(p) − min S(p)) / V(p))

    Outside the image, I and the squared differences have the value of the nearest edge voxel, as in the authors'
    code.  The mean of V is taken over each batch element separately, so the descriptor depends on how the image was
    cropped but not on the rest of the batch.  The gradient passes through everything, including that mean.

    Parameters
    ----------
    image : Tensor, shape (B, 1, *space)
        Types narrower than float32 are converted to float32.
    radius : int
        The patch has 2 · radius + 1 voxels a side.
    dilation : int
        Distance from p to its neighbours, in voxels.

    Returns
    -------
    Tensor, shape (B, 12, *space) in 3-D, (B, 4, *space) in 2-D
        In [0, 1], unchanged by I → s I + t.  Channels are the pairs in lexical order of the neighbours
        −e₀, +e₀, −e₁, +e₁, −e₂, +e₂.  The authors' order differs, which changes no distance.
        1 everywhere for a constant image.

    Raises
    ------
    ValueError
        The shape is not that of an image with one channel; ``radius`` or ``dilation`` is out of range; or a value
        on the CPU is NaN or infinite.

    References
    ----------
    .. [1] Heinrich, Jenkinson, Papież, Brady and Schnabel, "Towards realtime multimodal fusion for image-guided
       interventions using self-similarities", MICCAI 2013.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import mind_ssc_descriptor
    >>> image = torch.arange(64.0).view(1, 1, 8, 8).sin()
    >>> found = mind_ssc_descriptor(image)
    >>> tuple(found.shape), torch.allclose(found, mind_ssc_descriptor(3 * image + 1), atol=1e-4)
    ((1, 4, 8, 8), True)
    """
    _require_arguments("image", image, radius, dilation)
    return require_finite_loss(descriptor(image, radius, dilation), [("image", image)])


def mind_ssc(fixed: Tensor, warped: Tensor, radius: int = 2, dilation: int = 2) -> Tensor:
    """Mean squared difference of two images' :func:`mind_ssc_descriptor` [1]_, over batch, channels and voxels.

    Parameters
    ----------
    fixed, warped : Tensor, shape (B, 1, *space)
        Of the same or of different contrasts.
    radius, dilation : int
        As for the descriptor.

    Returns
    -------
    Tensor, scalar
        Between 0 and 1.

    Raises
    ------
    ValueError
        The shapes differ, or as for the descriptor.

    References
    ----------
    .. [1] Heinrich, Jenkinson, Papież, Brady and Schnabel, "Towards realtime multimodal fusion for image-guided
       interventions using self-similarities", MICCAI 2013.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import mind_ssc
    >>> image = torch.arange(64.0).view(1, 1, 8, 8).sin()
    >>> round(mind_ssc(image, 1 - image).item(), 4), mind_ssc(image, image.mT).item() > 0.01
    (0.0, True)
    """
    _require_arguments("fixed", fixed, radius, dilation)
    require_same_shape("fixed", fixed, "warped", warped)
    loss = kernel.mind_ssc(fixed, warped, radius, dilation)
    return require_finite_loss(loss, [("fixed", fixed), ("warped", warped)])


def _require_arguments(name: str, image: Tensor, radius: int, dilation: int) -> None:
    require_image(name, image)
    if image.shape[1] != 1:
        raise ValueError(f"{describe(name, image)} must have one channel")
    if radius < 0 or dilation < 1:
        raise ValueError(f"MIND-SSC needs radius >= 0 and dilation >= 1, got radius={radius} and dilation={dilation}")
