"""The joint histogram of two images with smooth windows, and its gradients, in plain torch.

P(a, b) is the mean over voxels of w(a; x) w(b; y), where x and y are the intensities in bins, and the Gaussian window
w(k; x) ∝ exp(−(x − k)² / 2 width²) sums to one over the bins k.  With G = ∂L/∂P,
∂L/∂x = Σₐ ∂w(a; x)/∂x Σ_b G(a, b) w(b; y) / voxels, where ∂wₖ/∂x = wₖ (k − Σⱼ j wⱼ) / width², and likewise for y.

Windows are never stored: the reference computes them for one chunk of voxels at a time, in both directions, so memory
grows with the voxels, not with voxels times bins.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Window values in memory at once: enough to fit a CPU's cache, and to keep a GPU busy (16 MiB in float32).
CPU_CHUNK = 2**16
GPU_CHUNK = 2**22


def joint_histogram_reference(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
    """Two (R, voxels) of positions in bins to (R, bins, bins); it can be differentiated once, by both."""
    return _JointHistogram.apply(fixed, warped, bins, width)


class _JointHistogram(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
        ctx.save_for_backward(fixed, warped)
        ctx.width = width
        return histogram(fixed, warped, bins, width)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        fixed, warped = ctx.saved_tensors
        for_fixed, for_warped = ctx.needs_input_grad[:2]
        by_fixed, by_warped = gradients(gradient, fixed, warped, ctx.width, for_fixed, for_warped)
        return by_fixed if for_fixed else None, by_warped if for_warped else None, None, None


def histogram(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
    dtype = torch.promote_types(fixed.dtype, warped.dtype)
    total = torch.zeros(len(fixed), bins, bins, dtype=dtype, device=fixed.device)
    for _, fixed_windows, warped_windows in _chunks(fixed, warped, bins, width):
        total.baddbmm_(fixed_windows.mT, warped_windows)  # autocast does not change in-place operations
    return total / fixed.shape[1]


def gradients(
    gradient: Tensor, fixed: Tensor, warped: Tensor, width: float, for_fixed: bool, for_warped: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the positions for that of the histogram, (R, bins, bins); empty if not needed."""
    bins = gradient.shape[1]
    gradient = gradient / fixed.shape[1]
    centres = torch.arange(bins, dtype=gradient.dtype, device=gradient.device)
    by_fixed = torch.empty_like(fixed) if for_fixed else fixed.new_empty(0)
    by_warped = torch.empty_like(warped) if for_warped else warped.new_empty(0)
    with torch.autocast(gradient.device.type, enabled=False):
        for part, fixed_windows, warped_windows in _chunks(fixed, warped, bins, width):
            if for_fixed:
                upstream = warped_windows @ gradient.mT
                by_fixed[:, part] = _window_slope(fixed_windows, centres, width, upstream)
            if for_warped:
                upstream = fixed_windows @ gradient
                by_warped[:, part] = _window_slope(warped_windows, centres, width, upstream)
    return by_fixed, by_warped


def _chunks(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield chunks of voxels and the windows of both images there, with a bounded number of values."""
    rows, voxels = fixed.shape
    dtype = torch.promote_types(fixed.dtype, warped.dtype)
    centres = torch.arange(bins, dtype=dtype, device=fixed.device)
    size = max(1, (CPU_CHUNK if fixed.is_cpu else GPU_CHUNK) // (rows * bins))
    for start in range(0, voxels, size):
        part = slice(start, start + size)
        yield part, _windows(fixed[:, part], centres, width), _windows(warped[:, part], centres, width)


def _windows(positions: Tensor, centres: Tensor, width: float) -> Tensor:
    """Gaussian window of every voxel over the bins, (R, voxels) to (R, voxels, bins); sums to one."""
    return (positions.unsqueeze(-1) - centres).square().mul_(-0.5 / width**2).softmax(-1)


def _window_slope(windows: Tensor, centres: Tensor, width: float, gradient: Tensor) -> Tensor:
    """Σₖ gₖ ∂wₖ/∂x over the bins, (R, voxels, bins) to (R, voxels)."""
    mean = (windows * centres).sum(-1, keepdim=True)
    return ((centres - mean) * windows).mul_(gradient).sum(-1) / width**2
