"""The gradient of AutoReg's search (Fan et al., TIP 2023, Algorithm 1), by differences of gradients."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def hypergradient(
    inner: Callable[[], Tensor],
    outer: Callable[[], Tensor],
    weights: Sequence[Tensor],
    hyper: Sequence[Tensor],
    rate: float,
    epsilon: float,
    keep_length: bool = False,
) -> tuple[list[Tensor], float]:
    """Gradient of the outer loss, after one step of the weights, with respect to what is searched for.

    With ω' = ω − η dL_in/dω and v = dL_out/dω at ω'::

        dL_out(ω', α)/dα = ∂L_out(ω', α)/∂α − η (∂L_in(ω + ε v, α)/∂α − ∂L_in(ω − ε v, α)/∂α) / 2ε

    (steps 3 to 5 of Algorithm 1 [1]_, which leaves η out, as if the step had length 1; the difference of gradients
    approximates the second derivative of L_in times v).

    Parameters
    ----------
    inner, outer : callable
        Scalar losses on training and on validation pairs, at the tensors' values when called.
    weights : sequence of Tensor
        ω; restored afterwards.
    hyper : sequence of Tensor
        α or λ. The outer loss need not depend on them directly.
    rate, epsilon : float
        η and ε.
    keep_length : bool
        Treat the step's length η ‖dL_in/dω‖ as constant, as for optimisers whose steps do not grow with the loss.
        Only its direction then depends on what is searched for.  Otherwise a multiple of L_in gives a longer step,
        and the weights λ of its terms grow because longer steps are better.

    Returns
    -------
    (list of Tensor, float)
        The gradient, and the outer loss at ω'.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from regcore.autoreg.hypergradient import hypergradient
    >>> weight, target = torch.tensor([1.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    >>> inner = lambda: 0.5 * (weight - target).square().sum()  # pulls the weight to the target
    >>> outer = lambda: 0.5 * weight.square().sum()
    >>> (slope,), loss = hypergradient(inner, outer, [weight], [target], rate=0.1, epsilon=1e-2)
    >>> round(slope.item(), 3), round(loss, 3)  # η ω' and ω'² / 2, with ω' = 0.9
    (0.09, 0.405)
    """
    before = [weight.detach().clone() for weight in weights]

    def back() -> None:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)

    slope = torch.autograd.grad(inner(), weights, allow_unused=True)
    _move(weights, before, slope, -rate)
    loss = outer()
    slopes = torch.autograd.grad(loss, [*weights, *hyper], allow_unused=True)
    direction: Sequence[Tensor | None] = slopes[: len(weights)]
    direct = slopes[len(weights) :]
    if keep_length:  # v without its component along the step, which only a change of length would use
        direction = _across(direction, slope)
    ends = []
    for sign in (1, -1):
        _move(weights, before, direction, sign * epsilon)
        ends.append(torch.autograd.grad(inner(), hyper, allow_unused=True))
    back()
    found = [torch.zeros_like(value) if own is None else own for value, own in zip(hyper, direct, strict=True)]
    for place, (ahead, behind) in enumerate(zip(*ends, strict=True)):
        if ahead is not None:
            found[place] = found[place] - rate * (ahead - behind) / (2 * epsilon)
    return found, loss.item()


def _across(vectors: Sequence[Tensor | None], along: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The component of ``vectors``, taken as one long vector, orthogonal to ``along``."""
    known = [(one, other) for one, other in zip(vectors, along, strict=True) if other is not None]
    square = float(sum(other.square().sum() for _, other in known))
    share = float(sum((one * other).sum() for one, other in known if one is not None)) / (square or 1)

    def part(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        if other is None:
            return one
        return (0 if one is None else one) - share * other

    return [part(one, other) for one, other in zip(vectors, along, strict=True)]


def _move(weights: Sequence[Tensor], start: Sequence[Tensor], direction: Sequence[Tensor | None], by: float) -> None:
    """Set ``weights`` to ``start`` + ``by`` · ``direction``."""
    with torch.no_grad():
        for weight, value, step in zip(weights, start, direction, strict=True):
            weight.copy_(value if step is None else value + by * step)
