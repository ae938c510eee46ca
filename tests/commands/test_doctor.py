"""The doctor's table, and that a GPU runs as kernels only what was measured to be right and faster there."""

import math

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from support.paths import ROOT

from regcore.commands import doctor
from regcore.commands.cli import main
from regcore.kernels import dispatch, launch, reference_only
from regcore.kernels.dispatch import FEWEST_ENTRIES, NOT_VALIDATED

MEASURED = ROOT / "docs" / "results" / "gpu"
#: Looked up by another operator, and measured as a part of it.
PART_OF = {"label_places": "label_overlaps"}


def measured(name: str) -> pd.DataFrame:
    return pd.read_csv(MEASURED / f"{name}.csv")


@pytest.mark.parametrize("operator", FEWEST_ENTRIES)
def test_a_kernel_is_used_where_it_was_faster(operator):
    """Where it was timed: so far that is full size alone, and below it the table extrapolates."""
    rows = measured("dispatch")
    rows = rows[rows["operator"] == PART_OF.get(operator, operator)]
    used = rows[rows["entries"] >= FEWEST_ENTRIES[operator]]
    assert len(used), "a kernel that was not timed is not used"
    assert (used["kernel_ms"] <= used["reference_ms"]).all()


@pytest.mark.parametrize("operator", FEWEST_ENTRIES)
def test_a_kernel_is_used_where_it_was_right(operator):
    rows = measured("checks")
    rows = rows[(rows["operator"] == PART_OF.get(operator, operator)) & (rows["runs as"] == "Triton")]
    assert len(rows) and (rows["error"] <= doctor.TOLERANCE).all()


def test_every_operator_that_is_tried_is_listed_once():
    tried = {probe.operator for probe in doctor.PROBES}
    assert tried == (set(FEWEST_ENTRIES) - set(PART_OF)) | set(NOT_VALIDATED)
    assert not set(FEWEST_ENTRIES) & set(NOT_VALIDATED)


def test_dispatch_goes_by_device_type_and_size(monkeypatch):
    """With tensors that say that they are on a GPU, which needs none."""

    class OnGpu:
        is_cpu, is_cuda, device = False, True, torch.device("cuda")

        def __init__(self, count, dtype=torch.float32):
            self.count, self.dtype = count, dtype

        def numel(self):
            return self.count

    monkeypatch.setattr(dispatch, "why_no_gpu_kernels", lambda device: None)
    monkeypatch.setitem(dispatch.FEWEST_ENTRIES, "warp", 100)
    image, field = OnGpu(40), OnGpu(120)
    assert dispatch.has_kernel(image, field, operator="warp")
    assert dispatch.has_kernel(OnGpu(40, torch.float16), field, operator="warp")
    assert not dispatch.has_kernel(image, OnGpu(99), operator="warp")
    assert not dispatch.has_kernel(image, OnGpu(120, torch.float16), operator="warp")
    assert not dispatch.has_kernel(image, field, operator="mind_ssc")
    assert not dispatch.has_kernel(image, field)
    with reference_only():
        assert not dispatch.has_kernel(image, field, operator="warp")
    monkeypatch.setattr(dispatch, "why_no_gpu_kernels", lambda device: "no")
    assert not dispatch.has_kernel(image, field, operator="warp")


def test_why_no_gpu_kernels_run_is_said(monkeypatch):
    dispatch.why_no_gpu_kernels.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert dispatch.why_no_gpu_kernels(torch.device("cuda")) == "compute capability 7.5 is below 8.0"
    dispatch.why_no_gpu_kernels.cache_clear()
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    assert dispatch.why_no_gpu_kernels(torch.device("cuda")) == "Triton is not installed"
    dispatch.why_no_gpu_kernels.cache_clear()
    assert dispatch.why_no_gpu_kernels(torch.device("cpu")) == "no CUDA device"


def test_a_table_of_texts_in_markdown():
    table = pd.DataFrame({"operator": ["warp", "label_dice"], "ms": ["1.2", ""]})
    assert doctor.markdown(table).splitlines() == [
        "| operator   | ms  |",
        "| ---------- | --- |",
        "| warp       | 1.2 |",
        "| label_dice |     |",
    ]


@pytest.fixture
def few_probes(monkeypatch):
    chosen = [probe for probe in doctor.PROBES if probe.operator in ("warp", "smoothing", "weighted_diffusion")]
    monkeypatch.setattr(doctor, "PROBES", chosen)


@pytest.mark.slow
def test_the_doctor_says_what_runs_as_what(few_probes):
    pytest.importorskip("numba", reason="without Numba regcore has no kernels for CPUs")
    found = CliRunner().invoke(main, ["doctor", "--device", "cpu", "--size", "16", "16", "16"])
    assert found.exit_code == 0, found.output
    lines = {line.split("|")[1].strip(): line for line in found.output.splitlines() if line.startswith("|")}
    assert f"torch {torch.__version__}" in found.output and "GB/s" in found.output
    assert "Numba" in lines["warp"] and "yes" in lines["warp"] and "Numba" in lines["smoothing"]
    assert "reference (no kernel for CPUs)" in lines["weighted_diffusion"]


@pytest.mark.slow
def test_the_doctor_fails_where_a_kernel_is_wrong(few_probes, monkeypatch):
    pytest.importorskip("numba", reason="without Numba regcore has no kernels for CPUs")
    monkeypatch.setattr(doctor, "disagreement", lambda found, expected: 0.1)
    found = CliRunner().invoke(main, ["doctor", "--device", "cpu", "--size", "16", "16", "16"])
    assert found.exit_code == 1 and "disagrees with its reference" in found.output


def test_without_kernels_there_is_nothing_to_disagree(few_probes, monkeypatch):
    monkeypatch.setattr(launch, "numba", None)
    found = CliRunner().invoke(main, ["doctor", "--device", "cpu", "--size", "16", "16", "16"])
    assert found.exit_code == 0, found.output
    assert "reference (Numba is not installed)" in found.output


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = CliRunner().invoke(main, ["doctor", "--device", "cuda"])
    assert found.exit_code == 2 and "finds no GPU" in found.output


def test_what_is_not_finite_disagrees():
    ones = torch.ones(3)
    assert doctor.disagreement([ones], [ones]) == 0
    assert math.isinf(doctor.disagreement([ones * math.nan], [ones]))
    assert doctor.disagreement([ones * 1.1, ones], [ones, ones]) == pytest.approx(0.1, rel=1e-5)
