"""regcore: deformable medical image registration.

Importing this package costs nothing: torch is loaded by the rooms that compute.  The conventions that
every room keeps (units, axis order, file formats) are written down once, in :mod:`regcore.images.field`.

One thing is set, unless the user has set it: threads that wait sleep instead of spinning (``OMP_WAIT_POLICY``).  Where
other jobs need the same cores, as in a workflow, spinning threads slow down the working ones.  It has an effect only
before torch is loaded: import regcore first.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
