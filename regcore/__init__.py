"""regcore: deformable medical image registration.

Importing this package costs nothing: torch is loaded by the rooms that compute.  The conventions that
every room keeps (units, axis order, file formats) are written down once, in :mod:`regcore.images.field`.
"""

__version__ = "0.1.0"

#: Raised by one when a stage starts to compute something else from the same input.  Snakemake cannot see
#: a change inside an imported module, so every rule carries its stage's number as a parameter.
STAGE_VERSIONS = {
    "synthesise": 1,
    "truth": 2,
    "check": 1,
    "prepare": 1,
    "train": 4,
    "search": 1,
    "architecture": 2,
    "sweep": 1,
    "features": 1,
    "weights": 1,
    "register": 5,
    "evaluate": 4,
    "report": 3,
}
