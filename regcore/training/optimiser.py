"""The optimiser of a network's weights, and its state as tensors by name."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from regcore.training.muon import Muon


def make_optimiser(parameters: Iterable[nn.Parameter], name: str, learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser of a network's weights for the setting ``optimiser``.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        The weights.
    name : {"adam", "muon"}
        Adam without weight decay, or :class:`regcore.training.muon.Muon`.
    learning_rate : float
        The rate of its first step.

    Returns
    -------
    torch.optim.Optimizer

    Examples
    --------
    >>> import torch
    >>> from regcore.training.optimiser import make_optimiser
    >>> type(make_optimiser(torch.nn.Linear(8, 8).parameters(), "muon", 1e-3)).__name__
    'Muon'
    """
    if name == "muon":
        return Muon(parameters, learning_rate)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as tensors by name, such as ``0.exp_avg``; :func:`load_optimiser` takes them back.

    Parameters
    ----------
    optimiser : torch.optim.Optimizer
        As from :func:`make_optimiser`.

    Returns
    -------
    dict of str → Tensor
        Number of the parameter and name of its state → value; empty before the first step.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.optimiser import make_optimiser, optimiser_state
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> optimiser = make_optimiser(layer.parameters(), "adam", 1e-3)
    >>> layer(torch.ones(1, 2)).sum().backward()
    >>> optimiser.step()
    >>> sorted(optimiser_state(optimiser))
    ['0.exp_avg', '0.exp_avg_sq', '0.step']
    """
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state of an optimiser of the same parameters.

    Parameters
    ----------
    optimiser : torch.optim.Optimizer
        Of the same kind, for parameters of the same shapes in the same order.
    tensors : mapping of str → Tensor
        As from :func:`optimiser_state`, on any device.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.optimiser import load_optimiser, make_optimiser, optimiser_state
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> first, second = (make_optimiser(layer.parameters(), "adam", 1e-3) for _ in range(2))
    >>> layer(torch.ones(1, 2)).sum().backward()
    >>> first.step()
    >>> load_optimiser(second, optimiser_state(first))
    >>> optimiser_state(second)["0.step"].item()
    1.0
    """
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        # Fused Adam runs through memory, so a moment needs the memory layout of its weight.
        laid_out = torch.empty_like(parameters[int(index)]).copy_(value) if value.ndim else value
        states.setdefault(int(index), {})[key] = laid_out
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
