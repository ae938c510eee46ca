"""Work recorded once as a CUDA graph and replayed: the GPU then never waits for Python between two kernels.

Here, and not in the rooms that use it, because a training step and the iteration of an optimiser are recorded alike.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

#: Calls before the recording: kernels are compiled, libraries set up, and memory is found that lasts.
WARM_UPS = 2


class Recording(Generic[Result]):
    """A function of no arguments, recorded on the current CUDA device.

    Parameters
    ----------
    function : callable
        Works on tensors that stay where they are, does not wait for the device, and asks the CPU for nothing that
        changes from call to call.  It is called ``WARM_UPS`` times and once for the recording, which runs nothing.

    Attributes
    ----------
    result
        What the function returned when it was recorded: tensors that every :meth:`replay` fills anew.
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
        # Other threads, a data loader's or one that watches over processes, may go on meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self.result = function()

    def replay(self) -> Result:
        """Do the work again; the result is overwritten by the next call."""
        self._graph.replay()
        return self.result
