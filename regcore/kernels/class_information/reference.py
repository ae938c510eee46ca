"""How much one image tells about another, in plain torch: the total mutual information of classes of intensity.

Each image is split into background and classes of equally many content voxels; a voxel belongs to two neighbouring
classes in part, so that the measure is smooth.  No relation between the intensities of the two images is assumed, so it
holds for any pair of contrasts.

The information is *total*, summed over what both images show, not the mean: it is the logarithm of how much more likely
the pair is if the images depend on each other than if they do not.  So a small overlap that fits by chance does not
win, and what only one image covers says nothing.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Added to a mass before its logarithm is taken.
TINY = 1e-4
#: A smaller share of content than this has no rank.
LEAST = 1e-3


def classes(samples: Tensor, count: int) -> Tensor:
    """Split samples of an image into background and classes of intensity.

    Parameters
    ----------
    samples : Tensor, shape (3, *any)
        Rank of the intensity among all of the content (0 to 1) times share of content; share of content; share in
        which the image counts.
    count : int
        Classes of the content, at least 2.

    Returns
    -------
    Tensor, shape (count + 1, *any)
        Mass in the background and each class.  The sum is the share that counts.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.class_information.reference import classes
    >>> classes(torch.tensor([[0.25], [1.0], [1.0]]), 3)[:, 0].tolist()
    [0.0, 0.5, 0.5, 0.0]
    """
    return torch.stack([*split(samples, count)[0].unbind(1)])


def total_information(samples: Tensor, fixed: Tensor) -> Tensor:
    """Total mutual information of the classes of two images, in nats.

    With J(k, l) = Σ f_k(x) m_l(x) over the points x, and its sums N, J(k, ·), J(·, l):
    I = Σ J(k, l) log(J(k, l) N / (J(k, ·) J(·, l))).

    Parameters
    ----------
    samples : Tensor, shape (3, B, n)
        Of the moving image in B poses, as for :func:`classes`; differentiable once.
    fixed : Tensor, shape (classes + 1, n)
        Masses of the fixed image, from :func:`classes`.

    Returns
    -------
    Tensor, shape (B,)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.class_information.reference import classes, total_information
    >>> samples = torch.stack([torch.tensor([[0.0, 1.0] * 50]), torch.ones(1, 100), torch.ones(1, 100)])
    >>> round(total_information(samples, classes(samples, 2)[:, 0]).item() / 100, 2)  # log 2 for each point
    0.69
    """
    return _Information.apply(samples, fixed)


def sample(image: Tensor, voxels: Tensor) -> Tensor:
    """Interpolate an image linearly; it is zero beyond its last voxels, and constant along axes of one voxel.

    Parameters
    ----------
    image : Tensor, shape (*space, C)
        Channels last.
    voxels : Tensor, shape (B, n, D)
        Positions in voxels.

    Returns
    -------
    Tensor, shape (C, B, n)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.class_information.reference import sample
    >>> sample(torch.tensor([[[0.0], [4.0]], [[2.0], [6.0]]]), torch.tensor([[[0.5, 0.25], [5.0, 0.0]]])).tolist()
    [[[2.0, 0.0]]]
    """
    ndim = voxels.shape[-1]
    last = torch.tensor(image.shape[:-1], dtype=voxels.dtype, device=voxels.device) - 1
    places = (2 * voxels / last.clamp(min=1) - 1).flip(-1).reshape(1, *[1] * (ndim - 1), -1, ndim)
    found = torch.nn.functional.grid_sample(image.movedim(-1, 0)[None], places, align_corners=True)
    return found.reshape(-1, *voxels.shape[:-1])


def class_information_reference(maps: Tensor, image: Tensor, places: Tensor, fixed: Tensor, count: int) -> Tensor:
    """Total information of a fixed image about a moving one in several poses.

    Parameters
    ----------
    maps : Tensor, shape (B, D, D + 1)
        Places → voxels of the moving image: linear parts, and shifts in the last column.  Differentiable once.
    image : Tensor, shape (*space, 3)
        The moving image, channels last, as for :func:`classes`.
    places : Tensor, shape (n, D)
        Where the images are compared.
    fixed : Tensor, shape (3, n)
        The fixed image there, as for :func:`classes`.
    count : int
        Classes of the content, at least 2.

    Returns
    -------
    Tensor, shape (B,)
        In nats.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.class_information.reference import class_information_reference
    >>> fixed = torch.stack([torch.tensor([0.0, 1.0] * 8), *torch.ones(2, 16)])
    >>> image = fixed.T.reshape(4, 4, 3)
    >>> places = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    >>> maps = torch.eye(2, 3)[None]
    >>> round(class_information_reference(maps, image, places, fixed, 2).item() / 16, 2)  # log 2 for each point
    0.69
    """
    samples = sample(image, places @ maps[:, :, :-1].mT + maps[:, None, :, -1])
    return total_information(samples, classes(fixed[:, None], count)[:, 0])


class _Information(torch.autograd.Function):
    @staticmethod
    def forward(ctx, samples, fixed):
        masses, lower, part = split(samples, len(fixed) - 1)
        joint = fixed[None] @ masses.mT
        total, rows, columns = joint.sum((1, 2), keepdim=True), joint.sum(2, keepdim=True), joint.sum(1, keepdim=True)
        pointwise = (joint + TINY).log() + (total + TINY).log() - (rows + TINY).log() - (columns + TINY).log()
        ctx.save_for_backward(samples, fixed, lower, part, pointwise)
        return (joint * pointwise).sum((1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        samples, fixed, lower, part, pointwise = ctx.saved_tensors
        worth = pointwise.mT @ fixed  # of a unit of mass in each class, at each point
        outside = worth[:, 0]
        low = worth.gather(1, lower[:, None] + 1)[:, 0]
        high = worth.gather(1, lower[:, None] + 2)[:, 0]
        ranked, inside, _ = samples
        known = inside.clamp(min=LEAST)
        rank = torch.where((part > 0) & (part < 1), inside * (high - low) * (len(fixed) - 2), 0.0)
        share = low + part * (high - low) - outside - rank * ranked / known**2
        return torch.stack([rank / known, share, outside]) * gradient[None, :, None], None


def split(samples: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Masses (B, count + 1, *any), the lower one of the two classes of each point, and the part in the upper one."""
    ranked, inside, valid = samples
    place = ranked / inside.clamp(min=LEAST) * (count - 1)
    lower = place.floor().clamp(0, count - 2)
    part = (place - lower).clamp(0, 1)
    lower = lower.long()
    masses = samples.new_zeros(len(inside), count + 1, *inside.shape[1:])
    masses[:, 0] = (valid - inside).clamp(min=0)
    masses.scatter_(1, lower[:, None] + 1, (inside * (1 - part))[:, None])
    masses.scatter_(1, lower[:, None] + 2, (inside * part)[:, None])
    return masses, lower, part
