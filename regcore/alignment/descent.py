"""Descent of many small problems side by side."""

from collections.abc import Callable

import torch
from torch import Tensor

#: Longest move, relative to ``step``; halvings of a move that does not lower the loss enough; the share of what the
#: slope promises that is enough (Armijo).
LONGEST, ATTEMPTS, SHRINK, ENOUGH = 4.0, 6, 0.35, 1e-4


def descend(
    loss: Callable[[Tensor, Tensor], Tensor], start: Tensor, step: float, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Minimise B losses of d parameters each by BFGS with backtracking [1]_.

    Parameters
    ----------
    loss : callable
        (parameters (b, d), which of the B problems (b,)) → losses (b,).
    start : Tensor, shape (B, d)
        Parameters in one unit, for instance mm.
    step : float
        Length of the first move.
    iterations : int
        At most.
    tolerance : float
        A problem ends when a move is shorter.

    Returns
    -------
    Tensor, shape (B, d)
        Parameters, at least as good as at the start.
    Tensor, shape (B,)
        Losses.

    References
    ----------
    .. [1] Nocedal and Wright, "Numerical Optimization", 2nd edition 2006, Algorithms 3.1 and 6.1.

    Examples
    --------
    >>> import torch
    >>> from regcore.alignment.descent import descend
    >>> targets = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    >>> found, _ = descend(lambda p, which: ((p - targets[which]) ** 2).sum(1), torch.zeros(2, 2), 1.0, 20, 1e-4)
    >>> found.round(decimals=2).tolist()
    [[1.0, 2.0], [3.0, -4.0]]
    """

    def value_and_gradient(parameters: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        parameters = parameters.detach().requires_grad_()
        values = loss(parameters, which)
        (gradients,) = torch.autograd.grad(values.sum(), parameters)
        return values.detach(), gradients

    place, active = start, torch.arange(len(start), device=start.device)
    value, gradient = value_and_gradient(place, active)
    inverse = torch.eye(start.shape[1], dtype=start.dtype, device=start.device).repeat(len(start), 1, 1)
    inverse *= (step / gradient.norm(dim=1).clamp(min=1e-12))[:, None, None]
    fresh = torch.ones(len(start), dtype=torch.bool, device=start.device)
    for _ in range(iterations):
        direction = -(inverse[active] @ gradient[active, :, None])[..., 0]
        direction = direction * (LONGEST * step / direction.norm(dim=1, keepdim=True)).clamp(max=1)
        moved = _line_search(value_and_gradient, place[active], value[active], gradient[active], direction, active)
        which, places, values, gradients = moved
        inverse[which] = _updated(inverse[which], fresh[which], places - place[which], gradients - gradient[which])
        fresh[which] = False
        lengths = (places - place[which]).norm(dim=1)
        place, value, gradient = (
            whole.index_put((which,), part) for whole, part in ((place, places), (value, values), (gradient, gradients))
        )
        active = which[lengths > tolerance]
        if not len(active):
            break
    return place, value


def _line_search(value_and_gradient, place, value, gradient, direction, which):
    """Shorten each move until its loss falls enough; return the problems that moved, with where they are then."""
    slope = (direction * gradient).sum(1)
    length = torch.ones_like(slope)
    waiting = (slope < 0).nonzero()[:, 0]
    done = []
    for _ in range(ATTEMPTS):
        if not len(waiting):
            break
        candidate = place[waiting] + length[waiting, None] * direction[waiting]
        values, gradients = value_and_gradient(candidate, which[waiting])
        enough = values <= value[waiting] + ENOUGH * length[waiting] * slope[waiting]
        done.append((which[waiting[enough]], candidate[enough], values[enough], gradients[enough]))
        waiting = waiting[~enough]
        length[waiting] *= SHRINK
    if not done:
        return which[:0], place[:0], value[:0], gradient[:0]
    return tuple(torch.cat(parts) for parts in zip(*done, strict=True))


def _updated(inverse: Tensor, fresh: Tensor, move: Tensor, change: Tensor) -> Tensor:
    """The inverse Hessians after a move: unchanged where the curvature is not positive."""
    curvature = (move * change).sum(1)
    usable = curvature > 1e-10 * move.norm(dim=1) * change.norm(dim=1)
    safe = torch.where(usable, curvature, 1.0)[:, None, None]
    eye = torch.eye(move.shape[1], dtype=move.dtype, device=move.device)
    scaled = eye * (safe / (change * change).sum(1).clamp(min=1e-30)[:, None, None])
    inverse_before = torch.where((fresh & usable)[:, None, None], scaled, inverse)
    cross = eye - move[:, :, None] * change[:, None, :] / safe
    new = cross @ inverse_before @ cross.mT + move[:, :, None] * move[:, None, :] / safe
    return torch.where(usable[:, None, None], new, inverse)
