"""How Numba kernels are compiled, kept on disk and run: threads, forks, folders that cannot be written."""

import multiprocessing
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.kernel_cases import OPERATORS, assert_close, everything, inputs_of, needs_numba, value_and_gradients
from support.scripts import run_script

import regcore
from regcore.evaluation import digital_folds
from regcore.kernels import launch

pytestmark = needs_numba


@pytest.fixture
def restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


#: Larger than what one thread gets three times over; many rows, many planes, and many voxels for torch's own sums.
LARGE = [(230, 210), (150, 140, 3), (40, 36, 34), (6000, 3, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(shape, generator, restore_threads):
    assert np.prod(shape) > 2 * launch.VOXELS_PER_THREAD
    for name, function in OPERATORS.items():
        inputs = inputs_of(name, generator, shape, dtype=torch.float32)
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(function, inputs))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert torch.equal(a, b), name
    if len(shape) == 3 and min(shape) > 2:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(digital_folds(inputs[0].double()))
        assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_without_numba_everything_gives_the_same(tmp_path):
    """But for the last digits, over which a long sum in another order decides."""
    script = """
import sys
sys.modules["numba"] = None
import torch
from support.kernel_cases import Entered, everything, launch
assert launch.numba is None
with Entered() as entered:
    torch.save(everything(), sys.argv[1])
assert not entered.names
"""
    run_script(script, tmp_path / "found.pt")
    without, found = torch.load(tmp_path / "found.pt", weights_only=True), everything()
    assert without.keys() == found.keys()
    for name, values in found.items():
        assert_close(without[name], values, roundings=2**12)


@pytest.mark.slow
def test_an_operator_does_not_load_the_compiler_of_torch():
    """It is loaded in seconds, and is not needed to register."""
    script = """
import sys, torch
from regcore.spatial import warp
field = torch.zeros(1, 2, 8, 8, requires_grad=True)
warp(torch.rand(1, 1, 8, 8), field).sum().backward()
assert field.grad is not None and "torch._dynamo" not in sys.modules
"""
    run_script(script)


def test_kernels_run_in_a_forked_child_after_they_ran_in_the_parent(restore_threads):
    """Torch's own threads do not survive a fork: 2^15 numbers or more, as in descriptors and two gradients, hang."""
    torch.set_num_threads(2)
    names = [name for name in OPERATORS if name not in ("jacobian", "mind_ssc", "descriptor")]
    expected = everything(names)

    def compare():
        found = everything(names)
        same = [torch.equal(a, b) for name in found for a, b in zip(found[name], expected[name], strict=True)]
        sys.exit(0 if all(same) else 1)

    child = multiprocessing.get_context("fork").Process(target=compare)
    child.start()
    child.join(timeout=120)
    child.kill()  # where it hangs
    assert child.exitcode == 0
    assert everything(names).keys() == expected.keys()


def test_kernels_run_in_several_python_threads_at_once(restore_threads):
    torch.set_num_threads(2)
    expected = everything()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: everything(), range(8)):
            for name, values in found.items():
                assert all(torch.equal(a, b) for a, b in zip(values, expected[name], strict=True)), name


def copied_package(folder: Path) -> Path:
    """The package, as source alone, in ``folder``."""
    package = folder / "regcore"
    shutil.copytree(Path(regcore.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


@pytest.mark.slow
def test_kernels_compile_where_nothing_can_be_cached(tmp_path):
    """No folder is writable: not the one asked for, not that of the sources, not the user's."""
    package = copied_package(tmp_path)
    (package / "kernels" / "diffusion" / "__pycache__").write_text("a file, and no folder")
    (tmp_path / "file").touch()
    script = """
import torch, regcore
from regcore.kernels import diffusion, launch
assert regcore.__file__.startswith(__import__("sys").argv[1])
assert launch.numba is not None and "Null" in type(diffusion.cpu.square_differences._cache).__name__
assert diffusion.diffusion(torch.arange(6.0).view(1, 1, 2, 3)).item() == 5
"""
    below = str(tmp_path / "file" / "below")
    run_script(
        script,
        tmp_path,
        PYTHONPATH=str(tmp_path),
        PYTHONDONTWRITEBYTECODE="1",
        NUMBA_CACHE_DIR=below,
        XDG_CACHE_HOME=below,
        HOME=below,
    )


# ---- what is kept on disk


@pytest.mark.slow
def test_a_change_in_another_operator_makes_a_compiled_kernel_stale(tmp_path):
    """Scaling and squaring calls the interpolation of warp, in another folder, and its compiled form holds that."""
    warp = copied_package(tmp_path) / "kernels" / "warp" / "cpu.py"
    script = """
import os, pathlib, sys
import numba, numpy as np, torch  # once, for each of the processes that are forked here

def run(found):
    from regcore.kernels.integrate import cpu
    field, out = np.full((1, 1, 3, 4, 3), 0.5), np.empty((1, 1, 3, 4, 3))
    cpu.square_rows(0, 3, field, out)
    hits, misses = cpu.square_rows.stats.cache_hits, cpu.square_rows.stats.cache_misses
    np.save(found, [out[0, 0, 0, 0, 2], sum(hits.values()), sum(misses.values())])

warp, folder = pathlib.Path(sys.argv[1]), sys.argv[2]
for number in range(3):
    if number == 2:
        source, line = warp.read_text(), "high[x] = zero if above < zero else above"
        assert source.count(line) == 1
        warp.write_text(source.replace(line, "high[x] = zero"))
    child = os.fork()
    if not child:
        run(f"{folder}/{number}.npy")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    run_script(script, warp, tmp_path, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    results = [np.load(tmp_path / f"{number}.npy").tolist() for number in range(3)]
    assert results == [[1, 0, 1], [1, 1, 0], [0.625, 0, 1]]


def test_every_file_of_the_kernels_counts_for_what_is_kept(tmp_path):
    kernels = copied_package(tmp_path) / "kernels"
    assert launch._digest_of_sources(kernels) == launch._SOURCES
    seen = {launch._SOURCES}
    paths = sorted(kernels.rglob("*.py"))
    assert {path.parent.name for path in paths} >= {"kernels", "warp", "lncc", "not_validated"}
    for path in paths:
        path.write_text(path.read_text() + "#")
        seen.add(launch._digest_of_sources(kernels))
    paths[0].rename(paths[0].with_name("renamed.py"))
    seen.add(launch._digest_of_sources(kernels))
    assert len(seen) == len(paths) + 2


def double(values):
    for x in range(values.size):
        values[x] *= 2


@pytest.mark.parametrize("gone", ["_cache", "_cache_file", "_source_stamp"])
def test_a_numba_without_its_private_stamp_keeps_nothing_on_disk(gone, monkeypatch):
    """What Numba keeps by its own stamp could be stale: it knows nothing of the other files."""
    numba = launch.numba
    assert launch.jit(double)._cache._cache_file._source_stamp == launch._SOURCES

    def njit(**options):
        def compiled(function):
            kernel = numba.njit(**options)(function)
            if options.get("cache"):
                owners = {"_cache": kernel, "_cache_file": kernel._cache, "_source_stamp": kernel._cache._cache_file}
                delattr(owners[gone], gone)
            return kernel

        return compiled

    monkeypatch.setattr(launch, "numba", SimpleNamespace(njit=njit))
    kernel = launch.jit(double)
    assert "Null" in type(kernel._cache).__name__
    values = np.arange(3.0)
    kernel(values)
    assert values.tolist() == [0, 2, 4]
