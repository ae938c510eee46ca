"""Total mutual information of classes of intensity, of two images under affine maps, and its gradient.

:mod:`~regcore.kernels.class_information.reference` has the equation in plain torch,
:mod:`~regcore.kernels.class_information.cpu` the Numba kernels.  On a GPU the reference runs.
"""

import torch
from torch import Tensor

from regcore.kernels.class_information import cpu
from regcore.kernels.class_information.reference import class_information_reference, classes, sample
from regcore.kernels.dispatch import has_kernel
from regcore.kernels.launch import cpu_operator
from regcore.kernels.precomputed_gradients import returns_its_gradients

__all__ = ["class_information", "classes", "sample"]


def class_information(maps: Tensor, image: Tensor, places: Tensor, fixed: Tensor, count: int) -> Tensor:
    """As :func:`class_information_reference`, with the kernel if possible.

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
    >>> from regcore.kernels.class_information import class_information
    >>> fixed = torch.stack([torch.tensor([0.0, 1.0] * 8), *torch.ones(2, 16)])
    >>> places = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    >>> maps = torch.eye(2, 3)[None]
    >>> round(class_information(maps, fixed.T.reshape(4, 4, 3), places, fixed, 2).item() / 16, 2)  # log 2 a point
    0.69
    """
    if maps.is_cpu and has_kernel(image, places, fixed, maps):
        return torch.ops.regcore.class_information(maps, image, places, fixed, count)[0]
    return class_information_reference(maps, image, places, fixed, count)


@cpu_operator("regcore::class_information")
def _class_information(maps: Tensor, image: Tensor, places: Tensor, fixed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return cpu.information(maps, image, places, fixed, count)


@_class_information.register_fake
def _(maps: Tensor, image: Tensor, places: Tensor, fixed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return maps.new_empty(len(maps)), maps.new_empty(maps.shape)


returns_its_gradients(_class_information)
