"""Cases for tests of every kernel: operators, inputs that try them, and what they are compared by."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from regcore.evaluation import digital_folds
from regcore.kernels import label_dice, launch, reference_only
from regcore.losses import diffusion, lncc, mind_ssc, mind_ssc_descriptor
from regcore.spatial import integrate, jacobian_determinant, warp

needs_numba = pytest.mark.skipif(launch.numba is None, reason="without Numba regcore has no kernels")

SHAPES = [(7, 5), (5, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
per_type = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
per_border = pytest.mark.parametrize("border", ["zero", "edge"])
per_context = pytest.mark.parametrize("context", [nullcontext, reference_only], ids=["kernel", "reference"])
LABELS = (3, 0, 7)


def normal(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape)).to(dtype)


def rough(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    """Noise in which neighbours along an axis differ by 0.2 or more.

    A window of two voxels scores 1 whatever they hold, and its derivative is the difference of two numbers
    that grow without limit as the two come close.
    """
    board = np.indices(shape[2:]).sum(0) % 2
    return torch.from_numpy(board + generator.uniform(-0.4, 0.4, shape)).to(dtype)


def between_voxels(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    """Displacements up to two voxels long, each 0.2 voxels or more away from a whole number."""
    whole = generator.integers(-2, 2, shape)
    return torch.from_numpy(whole + generator.uniform(0.2, 0.8, shape)).to(dtype)


def label_map(generator, batch: int, shape, dtype=torch.uint8) -> torch.Tensor:
    """Labels 0, 3, 5 and 7 in blocks, so that some cells hold one label and some hold several."""
    coarse = generator.integers(0, 4, (batch, 1, *[(n + 1) // 2 for n in shape]))
    for axis, size in enumerate(shape, start=2):
        coarse = np.take(coarse.repeat(2, axis), np.arange(size), axis)
    return torch.from_numpy(np.array([0, 3, 5, 7])[coarse]).to(dtype)


def overlaps(fixed, moving, displacement):
    """The differentiable sums of the labels' kernel, (batch, label) each."""
    codes = torch.tensor(sorted(LABELS))
    places = label_dice.place(fixed, codes), label_dice.place(moving, codes)
    return label_dice.overlaps(*places, displacement, len(codes))[:2]


#: Every differentiable operator, as a function of the inputs that ``inputs_of`` makes for it.
OPERATORS = {
    "warp": warp,
    "warp-edge": lambda image, displacement: warp(image, displacement, border="edge"),
    "integrate": lambda velocity: integrate(velocity, 3),
    "lncc": lambda fixed, moving: lncc(fixed, moving, 3),
    "lncc-voxelmorph": lambda fixed, moving: lncc(fixed, moving, 4, "voxelmorph"),
    "mind_ssc": lambda fixed, warped: mind_ssc(fixed, warped, radius=1),
    "descriptor": lambda image: mind_ssc_descriptor(image, dilation=1),
    "overlaps": overlaps,
    "diffusion": diffusion,
    "jacobian": jacobian_determinant,
}
per_operator = pytest.mark.parametrize("name", OPERATORS)


def inputs_of(name, generator, shape, batch=1, channels=1, dtype=torch.float64) -> list[torch.Tensor]:
    field = between_voxels(generator, batch, len(shape), *shape, dtype=dtype)
    if name.startswith("warp"):
        return [normal(generator, batch, channels, *shape, dtype=dtype), field]
    if name.startswith("lncc"):
        return [normal(generator, batch, channels, *shape, dtype=dtype) + offset for offset in (3, -2)]
    if name in ("mind_ssc", "descriptor"):
        return [normal(generator, batch, 1, *shape, dtype=dtype) for _ in range(2 if name == "mind_ssc" else 1)]
    if name == "overlaps":
        return [label_map(generator, batch, shape), label_map(generator, batch, shape), field]
    return [field]


def value_and_gradients(function, inputs, cotangents=None) -> list[torch.Tensor]:
    """Values of ``function``, and its gradients with respect to each floating input, in that input's place."""
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
    values = function(*leaves)
    values = [values] if isinstance(values, torch.Tensor) else list(values)
    if cotangents is None:
        source = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(v.shape, dtype=v.dtype, generator=source) for v in values]
    gradients = torch.autograd.grad(values, [x for x in leaves if x.requires_grad], cotangents)
    return [*(v.detach() for v in values), *gradients]


class Entered(TorchDispatchMode):
    """Names of regcore's operators called in the context, and the entries of the largest tensor any call made."""

    def __init__(self):
        super().__init__()
        self.names, self.largest = set(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        namespace, _, name = function.name().partition("::")
        if namespace == "regcore":
            self.names.add(name)
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


def assert_close(found, expected, roundings: int = 64) -> None:
    """Each tensor within some roundings of its largest entry: a blend or a sum of a few dozen terms makes no more."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=roundings * torch.finfo(b.dtype).eps * b.abs().max().item())


def assert_kernel_is_reference(function, inputs, roundings: int = 64) -> None:
    """The same value and gradients, the kernel's forward and backward having run in one case and not in the other."""
    with Entered() as entered:
        found = value_and_gradients(function, inputs)
    assert entered.names
    with Entered() as entered, reference_only():
        expected = value_and_gradients(function, inputs)
    assert not entered.names
    assert_close(found, expected, roundings)


#: (moving, fixed, batch, channels): odd sizes, two voxels, one voxel in the fixed grid, larger and smaller.
WARPS = [
    ((7, 5), (6, 9), 2, 3),
    ((2, 2), (4, 3), 1, 1),
    ((9, 2), (1, 5), 1, 2),
    ((5, 4, 6), (4, 7, 3), 2, 2),
    ((2, 2, 2), (3, 2, 5), 3, 1),
    ((3, 5, 2), (2, 1, 1), 1, 1),
]


def displacements(generator, batch, shape, dtype):
    """Fractions of a voxel, a few voxels, far out of the image, and whole numbers, where the slope jumps."""
    for scale in (0.4, 3, 1e3):
        yield scale * normal(generator, batch, len(shape), *shape, dtype=dtype)
    yield torch.from_numpy(generator.integers(-3, 4, (batch, len(shape), *shape))).to(dtype)


def strided(x: torch.Tensor) -> torch.Tensor:
    """The same values, every other entry of a larger tensor, axes in another order in memory."""
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1]).transpose(1, -2).contiguous().transpose(1, -2)
    wide[..., ::2] = x
    return wide[..., ::2]


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def everything(names=tuple(OPERATORS)) -> dict[str, list[torch.Tensor]]:
    """Value and gradients of every operator in two and three dimensions, on one thread or two."""
    generator = np.random.default_rng(5)
    found = {}
    for shape in ((24, 20, 18), (7, 5)):  # the first is large enough for two threads
        for name in names:
            found[f"{name} {shape}"] = value_and_gradients(OPERATORS[name], inputs_of(name, generator, shape))
        displacement = normal(generator, 1, len(shape), *shape)
        folds = digital_folds(displacement)
        found[f"folds {shape}"] = [torch.tensor([folds.central, folds.corners, folds.simplices, folds.volume])]
    return found


def saved_by(function, *inputs) -> list[torch.Tensor]:
    """Tensors that the backward of ``function`` keeps."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        function(*inputs)
    return saved
