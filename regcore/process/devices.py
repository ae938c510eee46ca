"""Where networks and optimisers run."""

from pathlib import Path


def default_device():
    """Where networks and optimisers run: a GPU where there is one; of several the current one.

    Each process of a training that runs in several has one to itself.

    Returns
    -------
    torch.device
    """
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def gpu_count() -> int:
    """NVIDIA GPUs of this machine, found without loading torch."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
