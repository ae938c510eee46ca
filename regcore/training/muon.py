"""Muon (K. Jordan et al., 2024): steps whose update of a layer is an orthogonal matrix.

Adam's update of a layer is dominated by the few directions with large gradients.  Muon moves in all directions alike.
This is meant for networks that see noisy gradients and must find their features first, as with SynthMorph's random
contrasts.  torch's implementation is for matrices in bfloat16, which is slow on CPUs; this one is for convolutions, in
the precision of the weights.
"""

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

#: Coefficients of the polynomial whose repetition brings singular values near 1, and number of repetitions.
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.999), 1e-8
#: Root mean square of an update relative to the learning rate: about Adam's, so that the same rates work for both.
UPDATE = 0.2
#: Layers with fewer outputs, such as heads that predict a flow, use Adam.
FEWEST_OUTPUTS = 4


class Muon(torch.optim.Optimizer):
    """Muon [1]_ for the weights of layers, Adam for biases and for layers with few outputs.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Weights have their outputs along the first axis.
    learning_rate : float
        Rates for Adam suit it: an update's root mean square is 0.2 times the rate.

    References
    ----------
    .. [1] Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, "Muon: An optimizer for hidden layers in neural
       networks", kellerjordan.github.io/posts/muon, 2024.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.muon import Muon
    >>> weight = torch.nn.Parameter(torch.diag(torch.tensor([1.0, 2, 4, 8])))
    >>> before = weight.detach().clone()
    >>> optimiser = Muon([weight], learning_rate=0.01)
    >>> weight.square().sum().backward()  # the gradient is eight times as large in the last direction as in the first
    >>> optimiser.step()
    >>> lengths = torch.linalg.svdvals(weight.detach() - before)
    >>> bool(lengths.max() < 2 * lengths.min())
    True
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float):
        kinds: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in parameters:
            kinds[parameter.ndim > 1 and parameter.shape[0] >= FEWEST_OUTPUTS].append(parameter)
        groups = [{"params": group, "orthogonal": kind} for kind, group in kinds.items() if group]
        super().__init__(groups, {"lr": learning_rate})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step. Parameters without a gradient do not change."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                for alike in _of_one_size(parameters):
                    self._move(alike, group["lr"])
            elif parameters:
                self._adam(parameters, group["lr"])
        return loss

    def _move(self, weights: list[Tensor], learning_rate: float) -> None:
        """Update all weights with matrices of one size at once, because a small network has many small layers."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta, gradients = [self.state[w]["momentum"] for w in weights], _gradients(weights)
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov momentum
        matrices = orthogonalised(torch.stack([gradient.flatten(1) for gradient in ahead]))
        step = learning_rate * UPDATE * max(matrices.shape[1:]) ** 0.5
        moves = [matrix.view(w.shape) for matrix, w in zip(matrices, weights, strict=True)]
        torch._foreach_add_(weights, moves, alpha=-step)

    def _adam(self, parameters: list[Tensor], learning_rate: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter].update(
                    step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter)
                )
        states = [self.state[parameter] for parameter in parameters]
        adam(
            parameters,
            _gradients(parameters),
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=learning_rate,
            weight_decay=0,
            eps=EPSILON,
            maximize=False,
            fused=parameters[0].is_cpu,  # on a GPU, fused Adam needs the step counts there
        )


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    """The gradients of parameters that all have one."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _of_one_size(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Parameters in groups with matrices of one size."""
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
    return list(groups.values())


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors and singular values of about 0.7 to 1.2, by Newton-Schulz steps [1]_.

    Parameters
    ----------
    matrices : Tensor, shape (..., m, n)
        A singular value far below the largest one stays smaller than that.

    Returns
    -------
    Tensor, shape (..., m, n)
        Zero for a matrix of zeros.

    References
    ----------
    .. [1] Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, "Muon: An optimizer for hidden layers in neural
       networks", kellerjordan.github.io/posts/muon, 2024.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.muon import orthogonalised
    >>> matrix = torch.diag(torch.tensor([3.0, 1.0, 0.5]))
    >>> found = torch.linalg.svdvals(orthogonalised(matrix))
    >>> bool(found.min() > 0.65), bool(found.max() < 1.25)
    (True, True)
    """
    high, long = matrices.shape[-2:]
    wide = matrices if high <= long else matrices.mT
    a, b, c = COEFFICIENTS
    size = torch.linalg.matrix_norm(wide, keepdim=True)
    wide = wide / size.clamp(min=torch.finfo(matrices.dtype).tiny)
    wide = wide.reshape(-1, *wide.shape[-2:])
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    found = wide if high <= long else wide.mT
    return found.reshape(matrices.shape).contiguous()
