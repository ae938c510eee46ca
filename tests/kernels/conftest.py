"""Kernels for GPUs that run through Triton's interpreter do so as quickly as it can."""

import os

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_interpreter(request):
    """In the files that use Triton only: others do without loading it."""
    if request.path.name.endswith("_gpu.py") and os.environ.get("TRITON_INTERPRET") == "1":
        from support.triton_tools import quicken_interpreter

        pytest.importorskip("triton")
        quicken_interpreter()
