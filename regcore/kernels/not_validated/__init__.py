"""Triton kernels that were not validated on a GPU.  Only tests and ``benchmarks/gpu.py`` run them.

A module here has the name of its operator's folder in :mod:`regcore.kernels`, which has the reference and the
registration.  On a GPU, that operator runs as its plain-torch reference: its kernel is listed in
:data:`regcore.kernels.dispatch.NOT_VALIDATED` with the reason, and :func:`regcore.kernels.dispatch.has_kernel` refuses
it.

**What "not validated" means.**  The kernel agrees with its reference in Triton's interpreter on a CPU, and compiles for
sm_80 and sm_90 within its budget of registers and instructions; tests check both.  But the interpreter runs one program
after the other, with other instructions than a GPU, so it does not show races and compiler faults.

**How to validate one.**  On a machine with an NVIDIA GPU of compute capability 8.0 or more::

    python benchmarks/gpu.py --output docs/results/gpu
    python -m pytest tests/kernels -k gpu

The first command tests these kernels too, whatever :mod:`~regcore.kernels.dispatch` says.  ``checks.csv`` then has the
error of each against its reference and whether two runs gave the same bits; ``dispatch.csv`` has the times of both.
The second command runs the tests of all Triton kernels on the GPU instead of in the interpreter.

**How one moves back.**  If the errors are within :data:`regcore.commands.doctor.TOLERANCE`, two runs give the same bits
and the kernel is at least as fast as the reference:

1. move the module to ``gpu.py`` in the operator's folder, and change the imports in that folder's ``__init__.py``;
2. move its line in :mod:`~regcore.kernels.dispatch` from ``NOT_VALIDATED`` to ``FEWEST_ENTRIES``;
3. commit the tables with it; a test compares ``FEWEST_ENTRIES`` with them.

A kernel that is wrong or slower is fixed or removed.
"""
