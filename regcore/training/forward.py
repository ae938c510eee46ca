"""Calls of the network: precision and compilation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regcore.errors import InputError

#: Modules of torch whose exceptions mean that compilation failed, not that the network is wrong.
COMPILER_MODULES = ("torch._dynamo", "torch._inductor", "triton")


def forward(
    module: nn.Module, device: torch.device, precision: str = "float32", compiled: bool = False
) -> Callable[[Tensor], Tensor]:
    """The function that calls ``module`` in training; weights and ``state_dict`` stay those of the module.

    Parameters
    ----------
    module : nn.Module
        The network.
    device : torch.device
        Where it is.
    precision : {"float32", "bfloat16"}
        bfloat16 is torch's autocast: convolutions and products in bfloat16, the rest in float32.
    compiled : bool
        Whether to use ``torch.compile``.

    Returns
    -------
    callable
        Takes what the module takes. With bfloat16, its result may be bfloat16 as well.

    Raises
    ------
    InputError
        Raised by the first call of the function: the network cannot be compiled on this machine.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.forward import forward
    >>> layer = torch.nn.Conv2d(1, 2, 3)
    >>> call = forward(layer, torch.device("cpu"), precision="bfloat16")
    >>> call(torch.zeros(1, 1, 8, 8)).dtype, layer.weight.dtype
    (torch.bfloat16, torch.float32)
    """
    call = _compiled(module) if compiled else module
    if precision == "float32":
        return call

    def lowered(*inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return call(*inputs)

    return lowered


def _compiled(module: nn.Module) -> Callable[[Tensor], Tensor]:
    fast = torch.compile(module, dynamic=False)

    def call(*inputs: Tensor) -> Tensor:
        try:
            return fast(*inputs)
        except Exception as error:
            if not type(error).__module__.startswith(COMPILER_MODULES):
                raise
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"the network cannot be compiled on this machine ({type(error).__name__}: {reason}); torch.compile "
                "needs a C++ compiler such as g++, and Triton on GPUs. Set 'compile: false'"
            ) from error

    return call
