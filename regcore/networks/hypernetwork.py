"""A network that generates the weights of another: HyperMorph (Hoopes et al., IPMI 2021), Section 3.1.

An MLP maps hyperparameters to hidden units, and one linear map takes these to every generated weight.  The bias of
that map is initialised with the weights of the wrapped network and its matrix with small values, so the first
forward pass is that of the wrapped network for any hyperparameters.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from regcore.networks.design import Design

#: Contribution of the matrix to the initial weights, relative to the spread of the wrapped network's weights.  Most of
#: it is the same for all hyperparameters.
FIRST_SHARE = 0.05

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Hypernetwork(nn.Module):
    """Image pair and hyperparameters → the output of the wrapped network with weights generated for them [1]_.

    The code of the wrapped network is not changed: it is called with other weights.  Generated weights are removed from
    its parameters; the others are trained as usual.

    Parameters
    ----------
    network : nn.Module
        Any network that takes one tensor; it is modified.
    inputs : int
        Number of hyperparameters.
    hidden : sequence of int
        Units of the MLP's layers; (64,) * 4 in the paper, (128,) * 6 in its code.
    final : {"tanh", "relu"}
        Activation of the last layer, ReLU after the others; tanh in the paper, ReLU in its code.
    generated : sequence of str, optional
        Names of the parts whose weights are generated (``["unet"]``); default: all.

    Attributes
    ----------
    generated : list of str
        Names of the generated parameters.
    count : int
        Number of generated weights.

    Raises
    ------
    ValueError
        There is no hyperparameter or no layer, the activation is unknown, or a part has no parameters.

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from regcore.networks.hypernetwork import Hypernetwork
    >>> network = Hypernetwork(nn.Conv2d(2, 4, 3, padding=1), inputs=1, hidden=(8,))
    >>> pair, hyperparameters = torch.zeros(1, 2, 16, 16), torch.tensor([[0.1], [0.9]])
    >>> network.count, tuple(network(pair, hyperparameters).shape)
    (76, (2, 4, 16, 16))
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: int,
        hidden: Sequence[int] = (64, 64, 64, 64),
        final: str = "tanh",
        generated: Sequence[str] | None = None,
    ):
        super().__init__()
        if inputs < 1 or not hidden or min(hidden) < 1:
            raise ValueError(f"a hypernetwork needs hyperparameters and layers, not {inputs} and {list(hidden)}")
        if final not in ACTIVATIONS:
            raise ValueError(f"final must be one of {', '.join(ACTIVATIONS)}, not {final!r}")
        own = weights_of(network, generated)
        self.generated = list(own)
        self.shapes = [weight.shape for weight in own.values()]
        self.count = sum(weight.numel() for weight in own.values())
        sizes = [inputs, *hidden]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
            layers += [nn.Linear(before, after), nn.ReLU() if number < len(hidden) else ACTIVATIONS[final]()]
        self.mlp = nn.Sequential(*layers)
        self.weights = nn.Linear(hidden[-1], self.count)
        self._start(inputs, list(own.values()))
        for name in self.generated:
            _release(network, name)
        self.network = network

    @torch.no_grad()
    def _start(self, inputs: int, own: Sequence[Tensor]) -> None:
        """Initialise the map's bias with the wrapped network's weights, and its matrix with small values."""
        self.weights.bias.copy_(torch.cat([_flat(weight) for weight in own]))
        units = self.mlp(torch.rand(256, inputs))
        size = units.square().sum(1).mean().sqrt().clamp(min=1e-3)
        spread = torch.cat([torch.full((weight.numel(),), _spread(weight)) for weight in own])
        self.weights.weight.normal_().mul_((FIRST_SHARE / size * spread)[:, None])

    def forward(self, pair: Tensor, hyperparameters: Tensor) -> Tensor:
        """Run the wrapped network.

        Parameters
        ----------
        pair : Tensor, shape (B, C, *space)
        hyperparameters : Tensor, shape (R, n)
            Between 0 and 1.  One row is used for all samples; R = B gives each sample its own weights; with one sample,
            each row gives one sample of the result, and what depends on no generated weight is computed once.
        """
        weights, rows = self.generate(hyperparameters), len(hyperparameters)
        if rows == 1:
            return functional_call(self.network, {name: value[0] for name, value in weights.items()}, (pair,))
        if len(pair) not in (1, rows):
            raise ValueError(f"{len(pair)} samples cannot have {rows} rows of hyperparameters")
        return (each_alone if self._loops(pair) else all_at_once)(self.network, weights, pair)

    def _loops(self, pair: Tensor) -> bool:
        """Whether rows run one after the other: on a CPU if nothing is computed once for all rows, and if the network
        keeps batch statistics, which all rows would write at the same time, or warps with its own result."""
        if getattr(self.network, "warps", False):
            return True
        if any(isinstance(part, _BatchNorm) and part.training for part in self.network.modules()):
            return True
        return pair.is_cpu and not any(True for _ in self.network.parameters())

    def generate(self, hyperparameters: Tensor) -> dict[str, Tensor]:
        """Weights (rows, *shape) by name, for rows of hyperparameters (rows, n)."""
        with torch.autocast(hyperparameters.device.type, enabled=False):  # bfloat16 cannot distinguish 0.91 from 0.912
            flat = self.weights(self.mlp(hyperparameters))
        parts = flat.split([math.prod(shape) for shape in self.shapes], dim=1)
        return {
            name: _shaped(part, shape) for name, part, shape in zip(self.generated, parts, self.shapes, strict=True)
        }


@dataclass(frozen=True)
class HypernetworkDesign:
    """A :class:`Hypernetwork` around the network of another design."""

    inner: Design
    inputs: int
    hidden: Sequence[int]
    final: str
    generated: Sequence[str] | None

    @property
    def stride(self) -> int:
        return self.inner.stride

    @property
    def ndim(self) -> int | None:
        return self.inner.ndim

    @property
    def keeps_checkpoints(self) -> bool:
        return self.inner.keeps_checkpoints

    def build(self, ndim: int) -> Hypernetwork:
        return Hypernetwork(self.inner.build(ndim), self.inputs, self.hidden, self.final, self.generated)

    def check_parts(self) -> None:
        """Look whether the network has the parts that are to be generated, without making its weights.

        Raises
        ------
        ValueError
            It has not, or its encoder is generated and computed again in the backward pass.
        """
        with torch.device("meta"):
            network = self.inner.build(self.ndim or 2)
        try:
            generated = weights_of(network, self.generated)
        except ValueError as error:
            raise ValueError(f"'generated': {error}") from error
        if self.keeps_checkpoints and any("encoder." in name for name in generated):
            raise ValueError(
                "'checkpointing' computes the encoder again when its generated weights are gone; leave the encoder out "
                "of 'generated', or set 'checkpointing: false'"
            )


def each_alone(network: nn.Module, weights: Mapping[str, Tensor], pair: Tensor) -> Tensor:
    """Run rows of ``weights`` one after the other, each on its own sample, or all on a single one.

    Used on a CPU, which gains little from grouping; benchmarks/hypernetwork.py times both.

    Parameters
    ----------
    network : nn.Module
        Called once for each row.
    weights : mapping of str to Tensor, shape (rows, *shape)
        By the names of the network's parameters.
    pair : Tensor, shape (rows or 1, C, *space)
        The network's input.

    Returns
    -------
    Tensor, shape (rows, F, *space)

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from regcore.networks.hypernetwork import each_alone
    >>> network, weights = nn.Conv2d(2, 1, 1), {"weight": torch.ones(3, 1, 2, 1, 1), "bias": torch.arange(3.0)[:, None]}
    >>> each_alone(network, weights, torch.ones(1, 2, 4, 4))[:, 0, 0, 0].tolist()
    [2.0, 3.0, 4.0]
    """
    rows = range(len(next(iter(weights.values()))))
    samples = pair.expand(len(rows), *pair.shape[1:])
    return torch.cat(
        [functional_call(network, {n: w[row] for n, w in weights.items()}, (samples[row : row + 1],)) for row in rows]
    )


def all_at_once(network: nn.Module, weights: Mapping[str, Tensor], pair: Tensor) -> Tensor:
    """As :func:`each_alone`, but with one convolution for all rows: grouped, or by a kernel with separate rows.

    Parameters
    ----------
    network : nn.Module
        Called once.
    weights : mapping of str to Tensor, shape (rows, *shape)
        By the names of the network's parameters.
    pair : Tensor, shape (rows or 1, C, *space)
        The network's input.

    Returns
    -------
    Tensor, shape (rows, F, *space)

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from regcore.networks.hypernetwork import all_at_once
    >>> network, weights = nn.Conv2d(2, 1, 1), {"weight": torch.ones(3, 1, 2, 1, 1), "bias": torch.arange(3.0)[:, None]}
    >>> all_at_once(network, weights, torch.ones(1, 2, 4, 4))[:, 0, 0, 0].tolist()
    [2.0, 3.0, 4.0]
    """

    def run(own: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(network, own, (x if x.ndim == pair.ndim else x[None],))[0]

    return vmap(run, in_dims=(0, None if len(pair) == 1 else 0), randomness="different")(dict(weights), pair)


def weights_of(network: nn.Module, parts: Sequence[str] | None) -> dict[str, nn.Parameter]:
    """The parameters of the named parts of a network; None: of the whole network.

    Parameters
    ----------
    network : nn.Module
        Any network.
    parts : sequence of str, optional
        Names of its submodules or parameters.

    Returns
    -------
    dict of str → nn.Parameter

    Raises
    ------
    ValueError
        A part does not exist or has no parameters.

    Examples
    --------
    >>> from torch import nn
    >>> from regcore.networks.hypernetwork import weights_of
    >>> network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3))
    >>> list(weights_of(network, ["1"]))
    ['1.weight', '1.bias']
    """
    everything = dict(network.named_parameters())
    if parts is None:
        return everything
    found = {n: p for n, p in everything.items() if any(n == part or n.startswith(f"{part}.") for part in parts)}
    for part in parts:
        if not any(n == part or n.startswith(f"{part}.") for n in found):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in everything))
            raise ValueError(f"the network has no part '{part}' with weights; it has {known}")
    return found


def _release(network: nn.Module, name: str) -> None:
    """Remove a parameter from the network, leaving an empty slot for the generated one."""
    owner, _, last = name.rpartition(".")
    module = network.get_submodule(owner)
    delattr(module, last)
    module.register_buffer(last, torch.empty(0), persistent=False)


def _spread(weight: Tensor) -> float:
    """Standard deviation of a weight's values; 0 for a single value or equal ones."""
    return float(weight.std(correction=0))


def _flat(weight: Tensor) -> Tensor:
    """A weight's values, flat; kernels (F, C, k, ...) in the order (F, k, ..., C), the fastest for convolutions."""
    return weight.detach().movedim(1, -1).reshape(-1) if weight.ndim > 3 else weight.detach().reshape(-1)


def _shaped(rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of :func:`_flat` for rows of values."""
    if len(shape) > 3:
        return rows.reshape(-1, shape[0], *shape[2:], shape[1]).movedim(-1, 2)
    return rows.reshape(-1, *shape)
