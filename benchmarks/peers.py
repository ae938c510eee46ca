"""The operators of registration in the forms that other packages give them, to time and test ours against.

Each function is written anew from its equation, in the style and with the cost of the package that its
docstring names.  Tensors are ``(B, C, D, H, W)``, displacements ``(B, 3, D, H, W)`` in voxels, everything
three-dimensional.  Nothing here is imported by regcore.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

# ---- warping and integrating


def warp_grid_sample(image: Tensor, displacement: Tensor) -> Tensor:
    """``image(p + u(p))`` in the form of VoxelMorph's and TransMorph's SpatialTransformer.

    The positions are normalised to [-1, 1] axis by axis, the components moved last and reversed for
    ``grid_sample``; zeros outside the image.
    """
    shape = displacement.shape[2:]
    axes = [torch.arange(size, dtype=displacement.dtype) for size in shape]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None] + displacement
    normalised = [2 * (positions[:, axis] / (size - 1) - 0.5) for axis, size in enumerate(shape)]
    points = torch.stack(normalised, dim=1).permute(0, 2, 3, 4, 1).flip(-1)
    return F.grid_sample(image, points, align_corners=True, padding_mode="zeros")


def integrate_grid_sample(velocity: Tensor, steps: int = 7) -> Tensor:
    """exp(v) by scaling and squaring in the form of VoxelMorph's VecInt: zeros outside the grid."""
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = displacement + warp_grid_sample(displacement, displacement)
    return displacement


# ---- local normalised cross-correlation


def _lncc_packed(fixed: Tensor, moving: Tensor, window: int, box: Callable[[Tensor], Tensor]) -> Tensor:
    """-mean of cross² / (var_F · var_M + 1e-5), where ``box`` sums five moments, a channel each, over windows."""
    moments = torch.cat([fixed, moving, fixed * fixed, moving * moving, fixed * moving], dim=1)
    return _lncc_of_moments(box(moments).unbind(1), window)


def _lncc_of_moments(sums: Sequence[Tensor], window: int) -> Tensor:
    """-mean cc of the window sums of F, M, F², M², FM, with N = window³ also at the border."""
    count = window**3
    fixed, moving, fixed2, moving2, product = sums
    mean_fixed, mean_moving = fixed / count, moving / count
    cross = product - mean_moving * fixed - mean_fixed * moving + mean_fixed * mean_moving * count
    variance_fixed = fixed2 - 2 * mean_fixed * fixed + mean_fixed * mean_fixed * count
    variance_moving = moving2 - 2 * mean_moving * moving + mean_moving * mean_moving * count
    return -(cross * cross / (variance_fixed * variance_moving + 1e-5)).mean()


def lncc_dense(fixed: Tensor, moving: Tensor, window: int = 9) -> Tensor:
    """LNCC in the form of TransMorph and of VoxelMorph up to 0.2: five dense window³ convolutions with ones."""
    ones = torch.ones(1, 1, window, window, window)
    moments = (fixed, moving, fixed * fixed, moving * moving, fixed * moving)
    return _lncc_of_moments([F.conv3d(moment, ones, padding=window // 2) for moment in moments], window)


def lncc_separable(fixed: Tensor, moving: Tensor, window: int = 9) -> Tensor:
    """LNCC with three one-dimensional convolutions for each moment, as MONAI and FireANTs filter."""

    def box(moment: Tensor) -> Tensor:
        for axis in range(3):
            size = [window if a == axis else 1 for a in range(3)]
            moment = F.conv3d(moment, torch.ones(1, 1, *size), padding=[n // 2 for n in size])
        return moment

    moments = (fixed, moving, fixed * fixed, moving * moving, fixed * moving)
    return _lncc_of_moments([box(moment) for moment in moments], window)


def lncc_avg_pool(fixed: Tensor, moving: Tensor, window: int = 9) -> Tensor:
    """LNCC with three one-dimensional average pools of all moments together, as neurite 0.3.4 filters."""

    def box(moments: Tensor) -> Tensor:
        for axis in range(3):
            size = [window if a == axis else 1 for a in range(3)]
            moments = F.avg_pool3d(moments, size, stride=1, padding=[n // 2 for n in size]) * window
        return moments

    return _lncc_packed(fixed, moving, window, box)


def lncc_cumsum(fixed: Tensor, moving: Tensor, window: int = 9) -> Tensor:
    """LNCC with differences of cumulative sums: the work does not grow with the window."""

    def box(moments: Tensor) -> Tensor:
        for dim in (2, 3, 4):
            size = moments.shape[dim]
            total = _pad(moments, dim, window // 2 + 1, window // 2).cumsum(dim)
            moments = total.narrow(dim, window, size) - total.narrow(dim, 0, size)
        return moments

    return _lncc_packed(fixed, moving, window, box)


def lncc_shifts(fixed: Tensor, moving: Tensor, window: int = 9) -> Tensor:
    """LNCC with sums of 1, 2, 4, 8 ... voxels by adding shifted slices (9 = 8 + 1): the best torch-only form."""

    def box(moments: Tensor) -> Tensor:
        for dim in (2, 3, 4):
            moments = _shifted_sums(moments, dim, window)
        return moments

    return _lncc_packed(fixed, moving, window, box)


def _shifted_sums(values: Tensor, dim: int, window: int) -> Tensor:
    """Sums of ``window`` neighbours along ``dim``, zero outside, from the binary digits of ``window``."""
    size = values.shape[dim]
    run, width, offset, total = _pad(values, dim, window // 2, window // 2), 1, 0, None
    while width <= window:
        if window & width:  # the next `width` voxels of the window
            piece = run.narrow(dim, offset, size)
            total = piece if total is None else total + piece
            offset += width
        if 2 * width <= window:
            length = run.shape[dim] - width
            run = run.narrow(dim, 0, length) + run.narrow(dim, width, length)
        width *= 2
    return total


def _pad(values: Tensor, dim: int, before: int, after: int) -> Tensor:
    padding = [0, 0] * (values.ndim - 1 - dim) + [before, after]
    return F.pad(values, padding)


def lncc_monai() -> Callable[[Tensor, Tensor], Tensor]:
    """MONAI's own loss, window 9; ImportError where MONAI is not installed."""
    from monai.losses import LocalNormalizedCrossCorrelationLoss

    loss = LocalNormalizedCrossCorrelationLoss(spatial_dims=3, kernel_size=9, kernel_type="rectangular")
    return lambda fixed, moving: loss(moving, fixed)


def lncc_neurite() -> Callable[[Tensor, Tensor], Tensor]:
    """neurite's own function, window 9, which VoxelMorph 0.3.4 refers to; ImportError where it is not installed."""
    from neurite.nn.functional import ncc

    return lambda fixed, moving: -ncc(fixed, moving, window_size=9).mean()


# ---- overlap, smoothness, folding


def dice_one_hot(fixed_labels: Tensor, moving_labels: Tensor, displacement: Tensor, labels: Sequence[int]) -> Tensor:
    """Soft Dice loss through one-hot maps, in the form that VoxelMorph and TransMorph train with labels.

    1 - mean_k 2 A_k / (P_k + F_k), where P_k is the sum of the linearly warped map of label k, F_k that of
    the fixed map, A_k that of their product.
    """
    values = torch.tensor(labels, dtype=moving_labels.dtype).view(1, -1, 1, 1, 1)
    fixed = (fixed_labels == values).float()
    warped = warp_grid_sample((moving_labels == values).float(), displacement)
    axes = (2, 3, 4)
    return 1 - (2 * (warped * fixed).sum(axes) / (warped.sum(axes) + fixed.sum(axes))).mean()


def diffusion_stock(field: Tensor) -> Tensor:
    """Squared forward differences in the form of VoxelMorph's and TransMorph's Grad('l2'): a mean for each axis."""
    along_z = torch.abs(field[:, :, 1:] - field[:, :, :-1])
    along_y = torch.abs(field[:, :, :, 1:] - field[:, :, :, :-1])
    along_x = torch.abs(field[..., 1:] - field[..., :-1])
    return ((along_z * along_z).mean() + (along_y * along_y).mean() + (along_x * along_x).mean()) / 3


def jacobian_determinant_numpy(displacement: Tensor) -> np.ndarray:
    """det ∇φ, (D, H, W), in the form of VoxelMorph's and TransMorph's evaluation: ``np.gradient`` and cofactors."""
    u = displacement[0].numpy()
    position = np.stack(np.meshgrid(*map(np.arange, u.shape[1:]), indexing="ij"), axis=-1) + np.moveaxis(u, 0, -1)
    dz, dy, dx = np.gradient(position, axis=(0, 1, 2))
    return (
        dz[..., 0] * (dy[..., 1] * dx[..., 2] - dy[..., 2] * dx[..., 1])
        - dz[..., 1] * (dy[..., 0] * dx[..., 2] - dy[..., 2] * dx[..., 0])
        + dz[..., 2] * (dy[..., 0] * dx[..., 1] - dy[..., 1] * dx[..., 0])
    )


#: Offsets of the three neighbours that each of the ten determinants of Liu et al. takes differences to:
#: one step along each axis, in each of the eight combinations of signs, and the two of diagonal steps.
CORNERS = [tuple(map(tuple, np.diag(signs))) for signs in itertools.product((1, -1), repeat=3)]
DIAGONALS = [((-1, -1, 0), (-1, 0, -1), (0, -1, -1)), ((1, 1, 0), (0, 1, 1), (1, 0, 1))]


def ten_determinants(position: np.ndarray) -> list[np.ndarray]:
    """The ten determinants of φ (3, D, H, W) at the interior voxels, nine ``correlate`` passes for each.

    The identity gives 1 for each of the eight corners and 2 for each of the two diagonals: six times the
    volumes of the tetrahedra that dissect a voxel in two ways, so that the sum of ½ J / 6 is one voxel.
    No further normalisation is applied.
    """
    determinants = []
    for neighbours in (*CORNERS, *DIAGONALS):
        rows = [[_difference(component, neighbour) for component in position] for neighbour in neighbours]
        determinants.append(np.sign(np.linalg.det(neighbours)) * _determinant(rows))  # positive for the identity
    return determinants


def _difference(values: np.ndarray, neighbour: Sequence[int]) -> np.ndarray:
    """values(x + neighbour) - values(x) at the interior voxels."""
    kernel = np.zeros((3, 3, 3))
    kernel[1, 1, 1] = -1
    kernel[tuple(1 + step for step in neighbour)] = 1
    return ndimage.correlate(values, kernel)[1:-1, 1:-1, 1:-1]


def _determinant(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def non_diffeomorphic_volume_scipy(displacement: Tensor, mask: np.ndarray) -> float:
    """Non-diffeomorphic volume (Liu et al., IJCV 2024) in the numpy and scipy form of its authors.

    Σ over the ten determinants of ½ max(-J, 0) / 6, over the voxels of ``mask`` (D, H, W) that are not at
    the border of the grid, in percent of those voxels.
    """
    u = displacement[0].numpy().astype(np.float64)
    position = u + np.stack(np.meshgrid(*map(np.arange, u.shape[1:]), indexing="ij"))
    volume = sum(0.5 * np.maximum(-determinant, 0) / 6 for determinant in ten_determinants(position))
    inside = mask[1:-1, 1:-1, 1:-1]
    return float(volume[inside].sum() / inside.sum() * 100)


# ---- a training step


def stock_training_step(
    fixed: Tensor,
    moving: Tensor,
    similarity: Callable[[Tensor, Tensor], Tensor],
    weight: float = 1.0,
    half_resolution: bool = False,
) -> Callable[[], Tensor]:
    """One training step of the network of the ``voxelmorph`` package (0.3.4, torch) as a function of nothing.

    ``VxmPairwise`` with 16, 32, 32, 32 features and seven squarings; ``similarity`` plus ``weight`` times
    :func:`diffusion_stock` of the velocity; Adam.  The package integrates at full resolution, and with
    ``half_resolution`` its own modules are put together as the paper does it.  It builds only decoders with
    one convolution for each encoder level, so its mirrored decoder stands for the paper's longer one.
    """
    from voxelmorph.nn.models import VxmPairwise
    from voxelmorph.nn.modules import IntegrateVelocityField, ResizeDisplacementField, SpatialTransformer

    network = VxmPairwise(3, 1, 1, nb_features=(16, 32, 32, 32), integration_steps=7, device=str(fixed.device))
    network = network.to(fixed.device)
    halve, double = ResizeDisplacementField(scale_factor=0.5), ResizeDisplacementField(scale_factor=2)
    integrate, warp = IntegrateVelocityField(steps=7), SpatialTransformer()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> Tensor:
        if half_resolution:
            velocity = halve(network(moving, fixed, return_field_type="velocity"))
            warped = warp(moving, double(integrate(velocity)))
        else:
            _, warped = network(moving, fixed, return_warped_source=True)
            velocity = network.velocity
        loss = similarity(fixed, warped) + weight * diffusion_stock(velocity)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step
