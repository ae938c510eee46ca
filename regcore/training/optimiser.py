"""The optimiser of a network's weights, and its state as tensors by name."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from regcore.training.muon import Muon


def make_optimiser(parameters: Iterable[nn.Parameter], name: str, learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser of a network's weights for the setting ``optimiser``."""
    if name == "muon":
        return Muon(parameters, learning_rate)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as tensors by name, such as ``0.exp_avg``; :func:`load_optimiser` takes them back."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state of an optimiser of the same parameters."""
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        # Fused Adam runs through memory, so a moment needs the memory layout of its weight.
        laid_out = torch.empty_like(parameters[int(index)]).copy_(value) if value.ndim else value
        states.setdefault(int(index), {})[key] = laid_out
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
