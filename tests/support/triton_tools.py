"""Triton kernels without a GPU: run on the CPU by Triton's interpreter, and compiled for GPUs that are not there.

Where a GPU is, the same tests run the compiled kernels on it.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The architectures that every kernel is compiled for.
ARCHITECTURES = (80, 90)


class Budget(NamedTuple):
    """What one kernel may cost when it is compiled.

    Parameters
    ----------
    kernel : str
        Name of the function in its module.
    types : dict
        Triton's type of every argument that is no constant: ``{"image": "*fp32", "depth": "i32"}``.
    constants : dict
        Values of the constants; a type is given by its name, as in ``{"TYPE": "fp32"}``.
    registers, instructions : int
        Most registers of a thread, and most instructions of the program (both architectures).
    aligned : tuple of str
        Arguments that are multiples of 16, besides pointers; Triton tells these apart at run time.
    """

    kernel: str
    types: dict
    constants: dict
    registers: int
    instructions: int
    num_warps: int = 4
    aligned: tuple[str, ...] = ()


@functools.cache
def quicken_interpreter() -> None:
    """Triton's interpreter without work that comes to nothing: it computes the same in a third of the time.

    For every device function that a kernel calls, it replaces the functions of Triton's language again, which the
    launch has done before.  It computes whether whole numbers overflow, and then asserts that only in debug mode.
    It builds the table of NumPy's types each time it looks one up.
    """
    from triton.runtime import interpreter

    patched, patch, launch = set(), interpreter._patch_lang, interpreter.GridExecutor.__call__

    def patch_once(function):
        if function.__module__ in patched:
            return None  # a device function: only a launch takes the changes back
        patched.add(function.__module__)
        return patch(function)

    def launch_patched(self, *args, **kwargs):
        patched.clear()
        try:
            return launch(self, *args, **kwargs)
        finally:
            patched.clear()

    interpreter._patch_lang = patch_once
    interpreter.GridExecutor.__call__ = launch_patched
    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    look_up, known = interpreter._get_np_dtype, {}

    def look_up_once(kind):
        name = str(kind.scalar)
        if name not in known:
            known[name] = look_up(kind.scalar)
        return known[name]

    interpreter._get_np_dtype = look_up_once


@contextlib.contextmanager
def on_triton(*operators) -> Iterator[None]:
    """Let registered operators run as their GPU kernels on the CPU, through the interpreter."""
    with torch.library._scoped_library("regcore", "IMPL") as library:  # what it holds gives way at its end
        for operator in operators:
            library.impl(operator._name, operator._backend_fns["cuda"], "CPU")
        yield


def value_and_gradients(function: Callable, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """What ``function`` returns, and its gradients for all of ``tensors``, for a cotangent that is always the same."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    value = function(*leaves)
    seeded = torch.Generator().manual_seed(1)
    cotangent = torch.randn(value.shape, generator=seeded, dtype=torch.float64).to(value)
    return [value.detach(), *torch.autograd.grad(value, leaves, cotangent)]


def random_field(generator: np.random.Generator, shape: Sequence[int], dtype=torch.float32) -> torch.Tensor:
    """Two fields of as many components as axes, on :data:`DEVICE`."""
    return torch.from_numpy(generator.standard_normal((2, len(shape), *shape))).to(dtype).to(DEVICE)


def loss_and_gradients(function: Callable, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """The number that ``function`` returns, and three times its gradients."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad(3 * value, leaves)]


def assert_alike(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Each tensor within 32 roundings of its largest entry."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=32 * torch.finfo(b.dtype).eps * b.abs().max().item())


@functools.cache
def _compiler() -> subprocess.Popen:
    """A fresh process that compiles, without the interpreter, for all files of tests: it takes seconds to start.

    It reads a request on each line and ends when its input does, so no later than this process.
    """
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def compiled(module: str, budgets: list[Budget], architectures=ARCHITECTURES, opcode: str = "") -> list[dict]:
    """What each kernel costs on each architecture, and whether the pattern ``opcode`` is found in its code."""
    process = _compiler()
    request = json.dumps([module, [budget._asdict() for budget in budgets], architectures, opcode])
    process.stdin.write(request + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, f"the process that compiles has ended with {process.wait()}"
    results, error = json.loads(answer)
    assert error is None, error
    return results


def assert_within_budget(
    module: str, budgets: list[Budget], architectures: Sequence[int] = ARCHITECTURES, opcode: str = ""
) -> None:
    """No kernel spills registers to memory, and none takes more registers or instructions than it may.

    ``opcode`` is a pattern that an instruction of each must have.
    """
    results = compiled(module, budgets, architectures, opcode)
    for found, budget in zip(results, [b for b in budgets for _ in architectures], strict=True):
        where = f"{budget.kernel} {budget.constants} for sm_{found['architecture']}: {found}"
        assert found["stack"] == 0 and found["local"] == 0, f"registers are spilled, {where}"
        assert found["registers"] <= budget.registers, where
        assert found["instructions"] <= budget.instructions, where
        assert found["has_opcode"], f"no {opcode}, {where}"


def _compared_with_zero(ptx: str) -> list[str]:
    """Which instructions give the floating-point numbers that are tested for being zero."""
    made_by = {register: name for name, register in re.findall(r"^\s+([a-z][\w.]*)\s+(%\w+),", ptx, re.M)}
    tested = re.findall(r"setp\.(?:eq|neu)\.f\d+\s+%\w+, (%\w+), 0[fd]0+;", ptx)
    return sorted({made_by[register] for register in tested})


def _instructions(cubin: bytes) -> int:
    """How many instructions a program for GPUs (an ELF file) has, of 16 bytes each.

    A listing by nvdisasm has as many, and takes a second.
    """
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    width, sections = struct.unpack_from("<2H", cubin, 0x3A)
    length = 0
    for start in range(table, table + width * sections, width):
        flags, _, _, size = struct.unpack_from("<4Q", cubin, start + 8)
        length += size if flags & 4 else 0  # executable
    return length // 16


def _compile(module: str, budgets: list[dict], architectures: Sequence[int], opcode: str) -> list[dict]:
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    results = []
    for budget in budgets:
        kernel = getattr(importlib.import_module(module), budget["kernel"])
        constants = {
            name: tl.dtype(value) if isinstance(value, str) and hasattr(tl, value.replace("fp", "float")) else value
            for name, value in budget["constants"].items()
        }
        signature = {name: "constexpr" if name in constants else budget["types"][name] for name in kernel.arg_names}
        # As at run time, where torch's memory is aligned.
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(kernel.arg_names)
            if signature[name][0] == "*" or name in budget["aligned"]
        }
        for architecture in architectures:
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
            options = {"num_warps": budget["num_warps"]}
            binary = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(binary.asm["cubin"])
                file.flush()
                usage = subprocess.check_output([tools / "cuobjdump", "--dump-resource-usage", file.name], text=True)
                disassemble = [tools / "nvdisasm", "-ndf", "-c", file.name]
                listing = subprocess.check_output(disassemble, text=True) if opcode else ""
            results.append(
                {
                    "architecture": architecture,
                    "registers": int(re.search(r"REG:(\d+)", usage)[1]),
                    "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
                    "local": int(re.search(r"LOCAL:(\d+)", usage)[1]),
                    "instructions": _instructions(binary.asm["cubin"]),
                    "compared_with_zero": _compared_with_zero(binary.asm["ptx"]),
                    "has_opcode": re.search(opcode, listing) is not None,
                }
            )
    return results


needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing but answers may come between answers
    with os.fdopen(answers, "w") as out:
        for line in sys.stdin:
            try:
                answer = [_compile(*json.loads(line)), None]
            except Exception:
                answer = [None, traceback.format_exc()]
            print(json.dumps(answer), file=out, flush=True)
