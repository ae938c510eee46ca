"""The operators in which training and evaluation spend their time, one folder per operator.

A folder contains

- ``reference.py``: the equation, and the operator in plain torch, for every device and floating-point type;
- ``cpu.py``: the Numba kernels for CPUs, forward and backward, for float32 and float64;
- ``gpu.py``: the Triton kernels for GPUs, forward and backward;
- ``__init__.py``: the function that other packages call, and its registration with ``torch.library``, so that
  autograd, ``torch.library.opcheck`` and ``torch.compile`` know the operator.

Without ``cpu.py`` or ``gpu.py``, the reference runs there.  Triton kernels that were not validated on a GPU are
in :mod:`regcore.kernels.not_validated`.

The other files are shared: :mod:`~regcore.kernels.dispatch` chooses the implementation, :mod:`~regcore.kernels.launch`
compiles and runs Numba kernels, :mod:`~regcore.kernels.triton_launch` has code shared by Triton kernels,
:mod:`~regcore.kernels.precomputed_gradients` is the backward pass of losses whose forward pass computes gradients, and
:mod:`~regcore.kernels.layout` sets the memory layout of features.

Nothing in this package is specific to registration.  Packages above it check arguments.
"""

from regcore.kernels.dispatch import reference_only

__all__ = ["reference_only"]
