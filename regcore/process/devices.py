"""The device on which networks and optimisers run."""

from pathlib import Path


def default_device():
    """The device for networks and optimisers: the current GPU, or the CPU if there is no GPU.

    If a training runs in several processes, each has its own GPU.

    Returns
    -------
    torch.device

    Examples
    --------
    >>> from regcore.process.devices import default_device
    >>> default_device().type in ("cpu", "cuda")
    True
    """
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def gpu_count() -> int:
    """Number of NVIDIA GPUs of this machine, found without loading torch.

    Returns
    -------
    int

    Examples
    --------
    >>> from regcore.process.devices import gpu_count
    >>> gpu_count() >= 0
    True
    """
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
