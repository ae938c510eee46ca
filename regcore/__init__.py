"""regcore: deformable medical image registration.

Importing this package costs nothing: torch is loaded by the rooms that compute.  The conventions that
every room keeps (units, axis order, file formats) are written down once, in :mod:`regcore.images.field`.
"""

__version__ = "0.1.0"
