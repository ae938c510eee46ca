"""The operators that training and evaluation spend their time in, written for the machine.

Each module holds, top to bottom, the plain-torch reference, the Numba version for CPUs with its explicit
backward, and its registration with ``torch.library``, so that autograd, ``torch.library.opcheck`` and
``torch.compile`` know it; the Triton version for GPUs stands in the module of the same name in
:mod:`regcore.kernels.gpu`.  The reference runs on every device and in every floating-point type; kernels take
over on a CPU for float32 and float64 where Numba is installed, and on a GPU as :mod:`regcore.kernels.dispatch` says.
Nothing in this room knows what registration is for; arguments are checked by the rooms above.
"""

from regcore.kernels.launch import reference_only

__all__ = ["reference_only"]
