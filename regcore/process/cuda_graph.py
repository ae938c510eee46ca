"""Record work once as a CUDA graph and replay it, so that the GPU never waits for Python between two kernels.

Used for training steps and for the iterations of an optimiser.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

#: Calls before the recording, in which kernels compile, libraries initialise and lasting memory is allocated.
WARM_UPS = 2


class Recording(Generic[Result]):
    """A function of no arguments, recorded on the current CUDA device.

    Parameters
    ----------
    function : callable
        Works on tensors at fixed addresses, does not wait for the device, and uses nothing from the CPU that changes
        between calls.  It is called ``WARM_UPS`` times, and once for the recording, which executes nothing.

    Attributes
    ----------
    result
        What the function returned during the recording: tensors that every :meth:`replay` overwrites.
    """

    def __init__(self, function: Callable[[], Result]):
        random_state = torch.cuda.get_rng_state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.set_rng_state(random_state)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, such as a data loader's, may use the device during the recording.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self.result = function()

    def replay(self) -> Result:
        """Repeat the work; the next call overwrites the result."""
        self._graph.replay()
        return self.result
