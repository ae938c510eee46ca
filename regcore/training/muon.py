"""Muon (K. Jordan et al., 2024): steps whose update of a layer is an orthogonal matrix.

Adam's update of a layer is dominated by the few directions in which gradients are large; here all directions move
alike, which is meant for networks that see noisy gradients and have to find their features first, as with SynthMorph's
random contrasts.  torch has an implementation for matrices in bfloat16, which CPUs are slow at; this one is for
convolutions, in the precision of the weights.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

#: Of the polynomial whose repeated use brings singular values near 1, and how often it is used.
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.999), 1e-8
#: Root mean square of an update relative to the learning rate, about that of Adam, so that both take the same rates.
UPDATE = 0.2
#: Layers with fewer outputs, such as the heads that predict a flow, are left to Adam.
FEWEST_OUTPUTS = 4


class Muon(torch.optim.Optimizer):
    """Muon for the weights of layers, Adam for biases and for layers with few outputs.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        A weight has its outputs along the first axis.
    learning_rate : float
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float):
        kinds: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in parameters:
            kinds[parameter.ndim > 1 and parameter.shape[0] >= FEWEST_OUTPUTS].append(parameter)
        groups = [{"params": group, "orthogonal": kind} for kind, group in kinds.items() if group]
        super().__init__(groups, {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Take one step; parameters without a gradient stay."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                for parameter in parameters:
                    self._move(parameter, group["lr"])
            elif parameters:
                self._adam(parameters, group["lr"])

    def _move(self, weight: nn.Parameter, learning_rate: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        ahead = weight.grad.lerp(state["momentum"], MOMENTUM)  # Nesterov's
        matrix = orthogonalised(ahead.flatten(1))
        weight.add_(matrix.view(weight.shape), alpha=-learning_rate * UPDATE * max(matrix.shape) ** 0.5)

    def _adam(self, parameters: list[nn.Parameter], learning_rate: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter].update(
                    step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter)
                )
        states = [self.state[parameter] for parameter in parameters]
        adam(
            parameters,
            [parameter.grad for parameter in parameters],
            *([state[name] for state in states] for name in ("mean", "square")),
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=learning_rate,
            weight_decay=0,
            eps=EPSILON,
            maximize=False,
        )


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix with the same singular vectors and singular values of about 1 (0.7 to 1.2), by Newton-Schulz."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    a, b, c = COEFFICIENTS
    wide = wide / wide.norm().clamp(min=torch.finfo(matrix.dtype).tiny)
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.mT
