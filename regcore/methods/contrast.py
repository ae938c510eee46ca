"""Two contrasts of one anatomy: whether they are the same, and one image in the contrast of the other.

Images are arrays on one grid, aligned but not yet deformed onto each other, with values from 0 to 1.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from regcore.spatial import resample, smooth

#: Cells along the longest side of the images in which contrasts are compared: coarse, as anatomy differs in detail.
CELLS = 26
#: Side of the windows, cells, and the variance below which a window shows no structure.
WINDOW, FLAT = 5, 1e-3
#: Levels of intensity of the moving image, each of which gets one of the fixed image's.
LEVELS = 32


def agreement(fixed: Tensor, moving: Tensor, shared: Tensor) -> float:
    """Whether two images brighten and darken together.

    The sum over windows of their squared correlation, with the sign of the correlation, relative to the sum without
    signs.  Windows are larger than what subjects differ by after an affine alignment.

    Parameters
    ----------
    fixed, moving : Tensor, shape (1, 1, *space)
        The images.
    shared : Tensor of bool, shape (1, 1, *space)
        Where both show anatomy. Air is dark in every contrast, and would speak for agreement.

    Returns
    -------
    float
        1 for images of one contrast, −1 if one is inverted, about 0 if there is no relation.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods.contrast import agreement
    >>> image = torch.arange(24.0).sin().outer(torch.arange(24.0).cos())[None, None]
    >>> everywhere = torch.ones(1, 1, 24, 24, dtype=torch.bool)
    >>> round(agreement(image, 3 * image + 1, everywhere), 2), round(agreement(image, 1 - image, everywhere), 2)
    (1.0, -1.0)
    """
    first, second, both = (_coarse(image.float()) for image in (fixed, moving, shared))
    both = (both > 0.5).float()
    count = _means(both).clamp_min(1e-6)
    means = [_means(image * both) / count for image in (first, second)]
    variances = [
        (_means(image.square() * both) / count - mean.square()).clamp_min(0) + FLAT
        for image, mean in zip((first, second), means, strict=True)
    ]
    covariance = _means(first * second * both) / count - means[0] * means[1]
    strength = count * covariance.square() / (variances[0] * variances[1])
    # Without any structure there is nothing to agree on but roundings.
    return float((strength * covariance.sign()).sum() / strength.sum().clamp_min(1e-6 * float(count.sum())))


def in_contrast_of(fixed: Tensor, moving: Tensor, warped: Tensor, shared: Tensor) -> Tensor:
    """The moving image with the intensities that the fixed image has where the moving one has its own.

    Every intensity of the moving image becomes the mean of the fixed image over the voxels of ``shared`` onto which it
    is warped.

    Parameters
    ----------
    fixed, moving : Tensor, shape (1, 1, *space)
        The images, 0 to 1.
    warped : Tensor, shape (1, 1, *space)
        The moving image on the fixed one, as far as this is known.
    shared : Tensor of bool, shape (1, 1, *space)
        Where to learn the relation.

    Returns
    -------
    Tensor, shape (1, 1, *space)
        On the moving image's grid; the moving image itself if ``shared`` is empty.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods.contrast import in_contrast_of
    >>> fixed = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> found = in_contrast_of(fixed, 1 - fixed, 1 - fixed, torch.ones(1, 1, 64, 64, dtype=torch.bool))
    >>> bool((found - fixed).abs().mean() < 0.02)
    True
    """
    if not shared.any():
        return moving
    # On the CPU, where sums have the same bits every time.
    values, levels = fixed[shared].double().cpu(), (warped[shared] * LEVELS).long().clamp(0, LEVELS - 1).cpu()
    counts = torch.bincount(levels, minlength=LEVELS).double().numpy()
    sums = torch.bincount(levels, weights=values, minlength=LEVELS).numpy()
    # Neighbouring levels share what they know, and empty ones take it from them.
    sums, counts = (gaussian_filter1d(part, 1.0, mode="nearest") for part in (sums, counts))
    known = counts > 0
    middles = (np.arange(LEVELS) + 0.5) / LEVELS
    found = np.interp(moving.cpu().numpy(), middles[known], sums[known] / counts[known])
    return torch.from_numpy(found).to(moving)


def _coarse(image: Tensor) -> Tensor:
    sizes = image.shape[2:]
    factor = max(max(sizes) / CELLS, 1)
    shape = [max(min(n, WINDOW), round(n / factor)) for n in sizes]
    sigmas = [0.5 * n / small if small < n else 0.0 for n, small in zip(sizes, shape, strict=True)]
    return resample(smooth(image, sigmas), shape)


def _means(image: Tensor) -> Tensor:
    """Means over windows, zero outside the image, of any number of slices."""
    ndim = image.ndim - 2
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[ndim]
    # Pooling pads by itself only what is as large as its window.
    return pool(F.pad(image, [WINDOW // 2] * 2 * ndim), WINDOW, stride=1)
