"""Triton kernels without a GPU: run on the CPU by Triton's interpreter, and compiled for GPUs that are not there.

Where a GPU is, the same tests run the compiled kernels on it.
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
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


@contextlib.contextmanager
def on_triton(*operators) -> Iterator[None]:
    """Let registered operators run as their GPU kernels on the CPU, through the interpreter."""
    kept = {operator: operator._backend_fns.get("cpu") for operator in operators}
    for operator in operators:
        operator.register_kernel("cpu")(operator._backend_fns["cuda"])
    try:
        yield
    finally:
        for operator, function in kept.items():
            if function is not None:
                operator.register_kernel("cpu")(function)


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


def compiled(module: str, budgets: list[Budget], architectures=ARCHITECTURES, opcode: str = "") -> list[dict]:
    """What each kernel costs on each architecture: one fresh process compiles all, without the interpreter."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            module,
            json.dumps([[budget._asdict() for budget in budgets], architectures, opcode]),
        ],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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
                listing = subprocess.check_output([tools / "nvdisasm", "-c", file.name], text=True)
            results.append(
                {
                    "architecture": architecture,
                    "registers": int(re.search(r"REG:(\d+)", usage)[1]),
                    "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
                    "local": int(re.search(r"LOCAL:(\d+)", usage)[1]),
                    "matrix_products": len(re.findall(r"\bHG?MMA\.", listing)),
                    "instructions": len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s", listing, re.M)),
                    "compared_with_zero": _compared_with_zero(binary.asm["ptx"]),
                    "has_opcode": re.search(opcode, listing) is not None,
                }
            )
    return results


needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

if __name__ == "__main__":
    print(json.dumps(_compile(sys.argv[1], *json.loads(sys.argv[2]))))
