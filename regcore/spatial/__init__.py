"""Maps of space: warping, composing, integrating, inverting and measuring them.

Everything is a pure function of tensors ``(batch, channel, *space)`` in voxel units, in 2-D and 3-D from
the same code; see :mod:`regcore.field` for the conventions.
"""
