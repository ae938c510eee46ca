"""What every test shares: a calm process, seeded randomness, random smooth displacements, real data.

The environment is set here because torch, ITK and Snakemake read it when they are loaded.  A process that only hands
tests out to others does without torch, which takes seconds to load.
"""

import importlib.util
import os
import tempfile
from collections import Counter
from pathlib import Path

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers take the environment of the process that starts them
    _cache = tempfile.TemporaryDirectory(prefix="regcore-tests-")
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    os.environ["XDG_CACHE_HOME"] = _cache.name

import numpy as np
import pytest
from support.marks import mark

#: About how many seconds a test takes, by its marker: good enough to begin with the longest files.
SECONDS, QUICK_SECONDS = {"workflow": 60.0, "slow": 3.0}, 0.1


def pytest_configure(config: pytest.Config) -> None:
    """Threads of torch: one where the workers already use every core, else two.  Kernels for GPUs run on the CPU."""
    if config.getoption("dist", "no") != "no":  # this process hands out tests
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        return
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # Triton reads this when it is imported


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Mark and skip tests before `-m` chooses; then the longest files go first, so that no worker ends with one."""
    import torch

    impossible = {}
    if not torch.cuda.is_available():
        impossible["gpu"] = "no GPU"
    if importlib.util.find_spec("snakemake") is None:
        impossible["workflow"] = "Snakemake is not installed"
    for item in items:
        mark(item)
        for marker, reason in impossible.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    result = yield
    lengths: Counter[Path] = Counter()
    for item in items:
        lengths[item.path] += max(
            (SECONDS[m.name] for m in item.iter_markers() if m.name in SECONDS), default=QUICK_SECONDS
        )
    items.sort(key=lambda item: (-lengths[item.path], item.path))
    return result


@pytest.fixture(scope="session", autouse=True)
def memory_is_measured_once():
    """Trainings by the same method, and searches of the same kind, share one estimate of their memory."""
    from support.memory import measured_once

    with measured_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_is_forced_to_the_disk():
    """Optuna waits for the disk after every line of its journal: only a power cut would tell the difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def generator() -> np.random.Generator:
    """A source of random numbers that starts the same in every test."""
    return np.random.default_rng(0)


@pytest.fixture
def random_displacement(generator):
    """``make(shape, rms, sigma)``: a smooth random displacement (1, D, *shape), float64, in voxels.

    ``rms`` is that of each component, ``sigma`` the width of the Gaussian that smoothed it.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    def make(shape: tuple[int, ...], rms: float, sigma: float) -> torch.Tensor:
        noise = generator.standard_normal((len(shape), *shape))
        smooth = np.stack([gaussian_filter(component, sigma, mode="nearest") for component in noise])
        axes = tuple(range(1, len(shape) + 1))
        return torch.from_numpy(smooth * rms / np.sqrt((smooth**2).mean(axis=axes, keepdims=True)))[None]

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans: $REGCORE_TEST_DATA, else ``shared/data`` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("REGCORE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set REGCORE_TEST_DATA")
    return folder
