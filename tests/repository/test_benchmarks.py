"""The forms of other packages that the benchmarks time: they compute what ours are compared for."""

import importlib.util
import itertools
import sys

import numpy as np
import pytest
import torch
from support.paths import ROOT

from regcore.losses import diffusion, lncc, soft_dice
from regcore.spatial import identity, integrate, jacobian_determinant, warp

BENCHMARKS = ROOT / "benchmarks"
SHAPE = (13, 16, 11)


def load(name: str):
    """Import a file of ``benchmarks/``, which is no package, under its own name."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


peers = load("peers")
LNCC_FORMS = [peers.lncc_separable, peers.lncc_avg_pool, peers.lncc_cumsum, peers.lncc_shifts]


def random_images(generator, shape=SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, noise = (torch.from_numpy(generator.random((1, 1, *shape))).float() for _ in range(2))
    return fixed, 0.6 * fixed + 0.4 * noise


def random_field(generator, scale: float, shape=SHAPE) -> torch.Tensor:
    return torch.from_numpy(scale * generator.standard_normal((1, 3, *shape))).float()


def value_and_gradient(loss, fixed, moving) -> tuple[float, torch.Tensor]:
    leaf = moving.clone().requires_grad_()
    value = loss(fixed, leaf)
    return value.item(), torch.autograd.grad(value, leaf)[0]


def test_warp_grid_sample_is_our_warp(generator):
    image, displacement = random_images(generator)[0], random_field(generator, 2)
    torch.testing.assert_close(
        peers.warp_grid_sample(image, displacement), warp(image, displacement), atol=1e-4, rtol=0
    )


def test_integrate_grid_sample_is_our_integration_where_nothing_leaves_the_grid(generator):
    velocity = torch.zeros(1, 3, *SHAPE)
    velocity[:, :, 4:-4, 4:-4, 4:-4] = random_field(generator, 0.5)[:, :, 4:-4, 4:-4, 4:-4]
    torch.testing.assert_close(peers.integrate_grid_sample(velocity), integrate(velocity, 7), atol=1e-4, rtol=0)


def test_lncc_dense_is_the_correlation_of_every_window(generator):
    images = random_images(generator)
    padded = [np.pad(image[0, 0].double().numpy(), 2) for image in images]
    expected = []
    for corner in itertools.product(*map(range, SHAPE)):
        window = tuple(slice(start, start + 5) for start in corner)
        fixed, moving = (values[window] - values[window].mean() for values in padded)
        expected.append((fixed * moving).sum() ** 2 / ((fixed**2).sum() * (moving**2).sum() + 1e-5))
    assert peers.lncc_dense(*images, window=5).item() == pytest.approx(-np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("window", [3, 7, 9])
@pytest.mark.parametrize("form", LNCC_FORMS, ids=lambda form: form.__name__)
def test_every_form_of_lncc_is_the_dense_one(form, window, generator):
    images = random_images(generator)
    value, gradient = value_and_gradient(lambda *pair: form(*pair, window=window), *images)
    expected, dense_gradient = value_and_gradient(lambda *pair: peers.lncc_dense(*pair, window=window), *images)
    assert value == pytest.approx(expected, rel=1e-5)
    assert (gradient - dense_gradient).norm() < 1e-4 * dense_gradient.norm()


def test_lncc_of_neurite_is_the_dense_one(generator):
    pytest.importorskip("neurite", reason="neurite takes part in the benchmarks only where it is installed")
    images = random_images(generator)
    value, gradient = value_and_gradient(peers.lncc_neurite(), *images)
    expected, dense_gradient = value_and_gradient(peers.lncc_dense, *images)
    assert value == pytest.approx(expected, rel=1e-5)
    assert (gradient - dense_gradient).norm() < 1e-4 * dense_gradient.norm()


def test_lncc_of_monai_is_the_dense_one_where_variances_are_large(generator):
    pytest.importorskip("monai", reason="MONAI takes part in the benchmarks only where it is installed")
    images = random_images(generator)
    assert peers.lncc_monai()(*images).item() == pytest.approx(peers.lncc_dense(*images).item(), rel=1e-5)


def test_our_lncc_is_the_dense_one(generator):
    images = random_images(generator)
    value, gradient = value_and_gradient(lambda *pair: lncc(*pair, variant="voxelmorph"), *images)
    expected, dense_gradient = value_and_gradient(peers.lncc_dense, *images)
    assert value == pytest.approx(expected, rel=1e-5)
    assert (gradient - dense_gradient).norm() < 1e-4 * dense_gradient.norm()


def dice_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two slabs, labels 1 and 4, and a displacement of half a voxel along the first axis."""
    fixed = torch.zeros(1, 1, 6, 2, 2, dtype=torch.int64)
    fixed[:, :, 1:3], fixed[:, :, 3:5] = 1, 4
    displacement = torch.zeros(1, 3, 6, 2, 2)
    displacement[:, 0] = 0.5
    return fixed, fixed.clone(), displacement


def test_dice_one_hot_by_hand():
    # In units of the 4 voxels of a plane, label 1 at planes 1, 2 becomes ½, 1, ½ at planes 0, 1, 2, and label 4
    # the same two planes later: A = 1½, P = F = 2, so Dice is 3/4 for both.  Label 7 keeps to nobody.
    fixed, moving, displacement = dice_case()
    assert peers.dice_one_hot(fixed, moving, displacement, (1, 4)).item() == pytest.approx(0.25, abs=1e-6)
    assert peers.dice_one_hot(fixed, moving, 0 * displacement, (4,)).item() == pytest.approx(0, abs=1e-6)


def test_our_soft_dice_is_that_of_one_hot(generator):
    fixed, moving = (torch.from_numpy(generator.integers(0, 4, (1, 1, *SHAPE))) for _ in range(2))
    displacement = random_field(generator, 1)
    value = soft_dice(fixed, moving, displacement, (1, 2, 3)).item()
    assert value == pytest.approx(peers.dice_one_hot(fixed, moving, displacement, (1, 2, 3)).item(), rel=1e-5)


def test_diffusion_stock_is_ours(generator):
    field = random_field(generator, 1)
    assert peers.diffusion_stock(field).item() == pytest.approx(diffusion(field).item(), rel=1e-5)


def test_jacobian_determinant_numpy_is_ours(generator):
    displacement = random_field(generator, 0.3)
    expected = jacobian_determinant(displacement)[0].numpy()
    np.testing.assert_allclose(peers.jacobian_determinant_numpy(displacement), expected, atol=1e-4)


def test_ten_determinants_of_a_linear_map(generator):
    # A linear map multiplies every volume by its determinant; the identity's ten volumes are 1, and 2 twice.
    matrix = generator.standard_normal((3, 3))
    position = np.einsum("ij,jzyx->izyx", matrix, identity((4, 5, 4), torch.ones(1).double())[0].numpy())
    expected = np.linalg.det(matrix) * np.array([1] * 8 + [2] * 2)
    for values, value in zip(peers.ten_determinants(position), expected, strict=True):
        assert values.shape == (2, 3, 2)
        np.testing.assert_allclose(values, value, rtol=1e-10)


def folding_cases() -> dict[str, tuple[torch.Tensor, np.ndarray, float]]:
    """Displacement, mask and the non-diffeomorphic volume worked out by hand."""
    shape = (7, 8, 9)
    everywhere = np.ones(shape, dtype=bool)
    mirror = torch.zeros(1, 3, *shape)
    mirror[0, 1] = -2 * torch.arange(8.0).view(1, 8, 1)
    # One voxel c moves 1.5 voxels along an axis, past its neighbour d.  Of the ten determinants only the four
    # of c with a forward and the four of d with a backward step along the axis are negative, each -½.
    single = torch.zeros(1, 3, *shape)
    single[0, 2, 3, 4, 5] = 1.5
    interior = 5 * 6 * 7
    half = np.zeros(shape, dtype=bool)
    half[3, 4, 4:6] = True  # c and the voxel behind it, not d
    return {
        "none": (torch.zeros(1, 3, *shape), everywhere, 0),
        "mirrored": (mirror, everywhere, 100),
        "one voxel": (single, everywhere, 100 * 8 * 0.5 * 0.5 / 6 / interior),
        "one voxel, mask": (single, half, 100 * 4 * 0.5 * 0.5 / 6 / 2),
    }


@pytest.mark.parametrize("case", folding_cases())
def test_non_diffeomorphic_volume_of_known_folds(case):
    displacement, mask, expected = folding_cases()[case]
    assert peers.non_diffeomorphic_volume_scipy(displacement, mask) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("half_resolution", [False, True])
def test_stock_training_step_learns_a_shift(half_resolution):
    pytest.importorskip("voxelmorph", reason="VoxelMorph takes part in the benchmarks only where it is installed")
    torch.manual_seed(0)
    z, y, x = identity((16, 16, 16), torch.ones(1))[0]
    fixed, moving = (
        torch.exp(-((z - centre) ** 2 + (y - 8) ** 2 + (x - 8) ** 2) / 18)[None, None] for centre in (8, 10)
    )
    step = peers.stock_training_step(fixed, moving, torch.nn.functional.mse_loss, 0.01, half_resolution)
    losses = [step().item() for _ in range(5)]
    assert losses[0] == pytest.approx((fixed - moving).square().mean().item(), rel=1e-3)  # it starts at the identity
    assert losses[-1] < losses[0]


def test_operators_writes_both_tables(tmp_path, monkeypatch):
    operators = load("operators")
    monkeypatch.setattr(operators, "copy_bandwidth", lambda: 1e10)
    options = ["--size", "16", "12", "14", "--repeats", "2", "--only", "diffusion", "--no-memory", "--no-mallopt"]
    monkeypatch.setattr(sys, "argv", ["operators.py", *options, "--output", str(tmp_path / "operators")])
    operators.main()
    header, *rows = (tmp_path / "operators.csv").read_text().splitlines()
    assert header.startswith("operator,size,contestant,pass,median_ms,min_ms,max_ms,repeats,peak_mb")
    assert len(rows) == 6 and all(row.startswith("diffusion,16x12x14,") for row in rows)
    assert "| VoxelMorph form | forward |" in (tmp_path / "operators.md").read_text()


def test_a_page_of_results_names_a_study_file_that_exists():
    command = load("study_table").command
    assert command("default") == "snakemake --cores all"
    assert command("oasis-brains") == "snakemake --cores all --configfile config/studies/oasis-brains.yaml"
    assert command("mine", "mine.yaml") == "snakemake --cores all --configfile mine.yaml"


def test_memory_of_a_call_is_that_of_its_result():
    operators = load("operators")
    megabytes = operators.peak_growth(lambda: torch.ones(64_000_000 // 4)) / 1e6
    assert 60 < megabytes < 80


def test_a_kernel_is_told_from_the_reference(generator):
    pytest.importorskip("numba", reason="without Numba regcore has no kernels")
    from regcore.commands.doctor import entered
    from regcore.kernels import reference_only
    from regcore.kernels.warp import warp as kernel_warp

    image, displacement = random_images(generator)[0], random_field(generator, 1)
    assert entered(lambda: kernel_warp(image, displacement, False))
    with reference_only():
        assert not entered(lambda: kernel_warp(image, displacement, False))


def test_slow_contestants_are_called_less_often(monkeypatch):
    operators = load("operators")
    monkeypatch.setattr(operators, "milliseconds", lambda call: call())
    calls = {"quick": lambda: 2.0, "slow": lambda: 61e3}
    assert operators.take_turns(calls, 3, 2, "test") == {"quick": [2.0] * 3, "slow": [61e3] * 2}
