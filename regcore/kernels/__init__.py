"""The operators in which training and evaluation spend their time, one folder for each.

A folder holds, side by side,

- ``reference.py``: the equation, and the operator in plain torch, for every device and floating-point type;
- ``cpu.py``: the Numba kernels for CPUs, forward and backward, for float32 and float64;
- ``gpu.py``: the Triton kernels for GPUs, forward and backward;
- ``__init__.py``: the function that other rooms call, and its registration with ``torch.library``, by which autograd,
  ``torch.library.opcheck`` and ``torch.compile`` know the operator.

An operator without ``cpu.py`` or ``gpu.py`` runs as its reference there.  Triton kernels that no GPU has validated are
kept apart, in :mod:`regcore.kernels.not_validated`.

The files here are shared: :mod:`~regcore.kernels.dispatch` decides which form runs, :mod:`~regcore.kernels.launch`
compiles and runs Numba kernels, :mod:`~regcore.kernels.triton_launch` holds what Triton kernels have in common,
:mod:`~regcore.kernels.precomputed_gradients` is the backward of losses whose forward pass makes their gradients, and
:mod:`~regcore.kernels.layout` how features lie in memory.

Nothing in this room knows what registration is for.  Arguments are checked by the rooms above.
"""

from regcore.kernels.dispatch import reference_only

__all__ = ["reference_only"]
