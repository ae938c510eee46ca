"""The operators of :mod:`regcore.kernels` as Triton kernels, one module for each.

Nothing here is imported before a tensor on a GPU needs it, so that regcore runs without Triton.  References and
the registration with torch stand in the module of the same name one floor up; what is here takes tensors that were
found fit for a kernel, and computes.  Arithmetic is in float32, in float64 for tensors of that type; narrower
types are only how values are stored.

A volume is (B, C, Z, Y, X).  An image of two dimensions is one with Y = 1, as in the Numba kernels.
"""
