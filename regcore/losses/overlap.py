"""Differentiable overlap of labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.checks import describe, require_field, require_finite, require_image, require_same_space
from regcore.kernels.dispatch import WHOLE
from regcore.kernels.label_dice import overlaps, place


def soft_dice(fixed_labels: Tensor, moving_labels: Tensor, displacement: Tensor, labels: Sequence[int]) -> Tensor:
    """One minus the mean Dice of linearly interpolated labels, Eqs. 8–10 of VoxelMorph [1]_.

    Equal to warping one indicator image per label, (B, K, *space), with zeros beyond the border, and

        1 - mean_k 2 Σ_x p_k(x) [F(x) = k] / (Σ_x p_k(x) + Σ_x [F(x) = k]),

    but no such image is made, so memory does not grow with the number of labels.

    Parameters
    ----------
    fixed_labels : Tensor of int, shape (B, 1, *fixed)
    moving_labels : Tensor of int, shape (B, 1, *moving)
        Codes, any integers.
    displacement : Tensor, shape (B, D, *fixed)
        In voxels; the loss is differentiable only with respect to it.
    labels : sequence of int
        Codes to compare, without repetition.  A code that is in neither map after the warp is left out of the mean;
        one that is in only one of them counts as 0.

    Returns
    -------
    Tensor, scalar
        Between 0 and 1; the mean over the batch.  1 if no label is present.

    Raises
    ------
    ValueError
        The shapes do not fit; a label map is not of integers; ``labels`` is empty or repeats a code; or the
        displacement is not finite.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eqs. 8–10.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import soft_dice
    >>> fixed = torch.tensor([[[[0, 1, 1, 0]]]])
    >>> moving = torch.tensor([[[[0, 0, 1, 1]]]])
    >>> ahead = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    >>> soft_dice(fixed, moving, 0 * ahead, [1]).item(), soft_dice(fixed, moving, ahead, [1]).item()
    (0.5, 0.0)
    """
    require_field("displacement", displacement)
    require_same_space("displacement", displacement, "fixed_labels", fixed_labels)
    for name, tensor in (("fixed_labels", fixed_labels), ("moving_labels", moving_labels)):
        require_image(name, tensor)
        if tensor.dtype not in WHOLE or tensor.ndim != displacement.ndim or tensor.shape[:2] != (len(displacement), 1):
            raise ValueError(
                f"{describe(name, tensor)} of {tensor.dtype} must be a map of integers (batch, 1, *space) that fits "
                f"{describe('displacement', displacement)}"
            )
    codes = sorted(labels)
    if not codes or len(set(codes)) < len(codes) or any(int(code) != code for code in codes):
        raise ValueError(f"labels must be one code or more, each once, not {list(labels)}")
    codes = [int(code) for code in codes]
    require_finite("displacement", displacement)
    fixed, moving = place(fixed_labels, codes), place(moving_labels, codes)
    both, warped, sizes = overlaps(fixed, moving, displacement, len(codes))
    total = warped + sizes
    present = total.detach() != 0  # NaN counts as present, and propagates
    dice = torch.where(present, 2 * both / torch.where(present, total, 1), 0)
    return 1 - (dice.sum(1) / present.sum(1).clamp(min=1)).mean()
