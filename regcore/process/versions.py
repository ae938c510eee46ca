"""The processor, Python and package versions that a result depends on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor_name() -> str:
    """Name of the CPU, and the number of its cores that this process may use.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.process.versions import processor_name
    >>> processor_name().endswith("cores")
    True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or 'unknown processor'}, {cores} cores"


#: Packages whose versions are stored with every result.
PACKAGES = ("regcore", "torch", "numpy", "scipy", "nibabel", "antspyx", "nilearn", "snakemake")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on.

    Returns
    -------
    dict of str → str
        Package → version; packages that are not installed are left out.

    Examples
    --------
    >>> from regcore.process.versions import versions
    >>> {"python", "torch"} <= set(versions())
    True
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
