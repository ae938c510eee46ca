"""Overlap of label maps under linear interpolation, and its gradient, without one channel per label.

:mod:`~regcore.kernels.label_dice.reference` has the equations, :mod:`~regcore.kernels.label_dice.cpu` the Numba
kernels, :mod:`~regcore.kernels.label_dice.gpu` the Triton kernels.  ``place`` turns label codes into indices,
``overlaps`` computes the sums for Dice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.kernels.dispatch import WHOLE, has_kernel
from regcore.kernels.label_dice import cpu
from regcore.kernels.label_dice.reference import overlaps_reference, place_reference, place_type
from regcore.kernels.launch import cpu_operator, on_its_device

#: Most labels that the GPU kernel can count; with more labels, the reference runs.
MOST_COUNTED = 1023


def place(labels: Tensor, codes: Sequence[int]) -> Tensor:
    """As :func:`place_reference`, with the kernel if possible.

    Parameters
    ----------
    labels : Tensor of int
        A label map of any shape.
    codes : sequence of int
        Label codes in ascending order.

    Returns
    -------
    Tensor of int, same shape

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.label_dice import place
    >>> place(torch.tensor([0, 7, 4]), [4, 7]).tolist()
    [2, 1, 0]
    """
    fits = codes[0] >= 0 and codes[-1] < 2**16 and (labels.is_cpu or labels.numel() < 2**31)
    if fits and has_kernel(labels, kinds=WHOLE, operator="label_places"):
        return torch.ops.regcore.label_places(labels, codes)
    return place_reference(labels, codes)


def overlaps(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`overlaps_reference` (Eqs. 8–10 of VoxelMorph [1]_), with the kernel if possible.

    Parameters
    ----------
    fixed, moving : Tensor of int, shape (B, 1, *space)
        From :func:`place`.
    displacement : Tensor, shape (B, D, *space)
        In voxels.
    count : int
        K, the number of codes.

    Returns
    -------
    both, warped, sizes : Tensor, shape (B, K)
        The sums A, P and F of each label.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eqs. 8–10.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.label_dice import overlaps, place
    >>> fixed, moving = place(torch.tensor([[[[0, 1, 1]]]]), [1]), place(torch.tensor([[[[0, 0, 1]]]]), [1])
    >>> both, warped, sizes = overlaps(fixed, moving, torch.zeros(1, 2, 1, 3), count=1)
    >>> both.item(), warped.item(), sizes.item()
    (1.0, 1.0, 2.0)
    """
    fits = min(moving.shape[2:]) > 1 and moving.numel() < 2**31
    if not displacement.is_cpu:
        fits = fits and displacement.numel() < 2**31 and count <= MOST_COUNTED
    together = fixed.device == moving.device == displacement.device
    if fits and together and has_kernel(displacement, operator="label_overlaps"):
        return torch.ops.regcore.label_overlaps(fixed, moving, displacement, count)
    return overlaps_reference(fixed, moving, displacement, count)


@cpu_operator("regcore::label_places")
def _places(labels: Tensor, codes: Sequence[int]) -> Tensor:
    return cpu.places(labels, codes)


@_places.register_kernel("cuda")
@on_its_device
def _(labels: Tensor, codes: Sequence[int]) -> Tensor:
    from regcore.kernels.label_dice import gpu

    return gpu.places(labels, tuple(codes), place_type(codes))


@_places.register_fake
def _(labels: Tensor, codes: Sequence[int]) -> Tensor:
    return torch.empty(labels.shape, dtype=place_type(codes), device=labels.device)


@cpu_operator("regcore::label_overlaps")
def _overlaps(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    return cpu.overlaps(fixed, moving, displacement, count)


@_overlaps.register_kernel("cuda")
@on_its_device
def _(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    from regcore.kernels.label_dice import gpu

    return gpu.overlaps(fixed, moving, displacement, count)


@_overlaps.register_fake
def _(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    both, warped, sizes = (displacement.new_empty(displacement.shape[0], count) for _ in range(3))
    return both, warped, sizes


@cpu_operator("regcore::label_overlaps_backward")
def _overlaps_backward(
    by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor
) -> Tensor:
    return cpu.overlaps_backward(by_both, by_warped, fixed, moving, displacement)


@_overlaps_backward.register_kernel("cuda")
@on_its_device
def _(by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor) -> Tensor:
    from regcore.kernels.label_dice import gpu

    return gpu.overlaps_backward(by_both, by_warped, fixed, moving, displacement)


@_overlaps_backward.register_fake
def _(by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor) -> Tensor:
    return displacement.new_empty(displacement.shape)


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx, by_both: Tensor, by_warped: Tensor, _):
    return None, None, torch.ops.regcore.label_overlaps_backward(by_both, by_warped, *ctx.saved_tensors), None


_overlaps.register_autograd(_backward, setup_context=_remember)
