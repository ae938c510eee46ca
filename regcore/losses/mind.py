"""Similarity of the local structure of two images of any contrast: self-similarity descriptors."""

import operator
from collections.abc import Sequence

from torch import Tensor

from regcore.checks import describe, require_finite_loss, require_image, require_same_shape, require_same_space
from regcore.kernels import mind_ssc as kernel


def mind_ssc_descriptor(image: Tensor, radius: int | Sequence[int] = 2, dilation: int | Sequence[int] = 2) -> Tensor:
    """Self-similarity context of every voxel (MIND-SSC [1]_).

    For each pair (a, b) of face neighbours at a right angle to each other, with d the dilation along their axis::

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
    radius : int, or one for each axis of space
        The patch has 2 · radius + 1 voxels a side.
    dilation : int, or one for each axis of space
        Distance from p to its neighbours, in voxels.  With one number for each axis, patches and distances can be
        about as long in mm along all axes of an image with thick slices.

    Returns
    -------
    Tensor, shape (B, 12, *space) in 3-D, (B, 4, *space) in 2-D
        In [0, 1], unchanged by I → s I + t.  Channels are the pairs in lexical order of the neighbours
        −e₀, +e₀, −e₁, +e₁, −e₂, +e₂.  The authors' order differs, which changes no distance.
        1 everywhere for a constant image.

    Raises
    ------
    ValueError
        The shape is not that of an image with one channel; ``radius`` or ``dilation`` is not a whole number in range,
        or not as many as axes; or a value on the CPU is NaN or infinite.

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
    found = kernel.descriptor(image, *_checked("image", image, radius, dilation))
    return require_finite_loss(found, [("image", image)])


def mind_ssc(
    fixed: Tensor, warped: Tensor, radius: int | Sequence[int] = 2, dilation: int | Sequence[int] = 2
) -> Tensor:
    """Mean squared difference of two images' :func:`mind_ssc_descriptor` [1]_, over batch, channels and voxels.

    If the fixed image is compared with many others, :func:`mind_ssc_difference` describes it once.

    Parameters
    ----------
    fixed, warped : Tensor, shape (B, 1, *space)
        Of the same or of different contrasts.
    radius, dilation : int, or one for each axis of space
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
    settings = _checked("fixed", fixed, radius, dilation)
    require_same_shape("fixed", fixed, "warped", warped)
    return require_finite_loss(kernel.mind_ssc(fixed, warped, *settings), [("fixed", fixed), ("warped", warped)])


def mind_ssc_difference(
    descriptor: Tensor, warped: Tensor, radius: int | Sequence[int] = 2, dilation: int | Sequence[int] = 2
) -> Tensor:
    """:func:`mind_ssc` [1]_ of two images, of which the descriptor of one is known already.

    Parameters
    ----------
    descriptor : Tensor, shape (B, 12, *space) in 3-D, (B, 4, *space) in 2-D
        Of the fixed image, by :func:`mind_ssc_descriptor` with the same ``radius`` and ``dilation``.
    warped : Tensor, shape (B, 1, *space)
        The other image.
    radius, dilation : int, or one for each axis of space
        As for the descriptor.

    Returns
    -------
    Tensor, scalar
        Between 0 and 1.

    Raises
    ------
    ValueError
        The shapes do not fit, or as for the descriptor.

    References
    ----------
    .. [1] Heinrich, Jenkinson, Papież, Brady and Schnabel, "Towards realtime multimodal fusion for image-guided
       interventions using self-similarities", MICCAI 2013.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import mind_ssc, mind_ssc_descriptor, mind_ssc_difference
    >>> fixed, warped = torch.rand(2, 1, 1, 8, 8)
    >>> known = mind_ssc_descriptor(fixed)
    >>> bool(mind_ssc_difference(known, warped) == mind_ssc(fixed, warped))
    True
    """
    settings = _checked("warped", warped, radius, dilation)
    require_image("descriptor", descriptor)
    require_same_space("warped", warped, "descriptor", descriptor)
    channels = kernel.CHANNELS[warped.ndim - 2]
    if descriptor.shape[1] != channels:
        raise ValueError(f"{describe('descriptor', descriptor)} must have {channels} channels")
    loss = kernel.difference(descriptor, warped, *settings)
    return require_finite_loss(loss, [("descriptor", descriptor), ("warped", warped)])


def _checked(
    name: str, image: Tensor, radius: int | Sequence[int], dilation: int | Sequence[int]
) -> tuple[list[int], list[int]]:
    """Radius and dilation along each axis."""
    require_image(name, image)
    if image.shape[1] != 1:
        raise ValueError(f"{describe(name, image)} must have one channel")
    found = _along_axes("radius", radius, image), _along_axes("dilation", dilation, image)
    if min(found[0]) < 0 or min(found[1]) < 1:
        raise ValueError(f"MIND-SSC needs radius >= 0 and dilation >= 1, got radius={radius} and dilation={dilation}")
    return found


def _along_axes(name: str, value: int | Sequence[int], image: Tensor) -> list[int]:
    axes = image.ndim - 2
    try:
        values = [operator.index(number) for number in (value if isinstance(value, Sequence) else [value] * axes)]
    except TypeError:
        values = []
    if len(values) != axes:
        raise ValueError(f"{name}={value} must be a whole number, or one for each of the {axes} axes, in voxels")
    return values
