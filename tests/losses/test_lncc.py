"""Local normalised cross-correlation against other implementations, and on the images that break its usual form."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d, gaussian_filter
from support.paths import ROOT

from regcore.kernels import reference_only
from regcore.losses import lncc

SHAPES = [(7, 6), (5, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
per_variant = pytest.mark.parametrize("variant", ["ants", "voxelmorph"])


def noise(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape)).to(dtype)


def windows(image: np.ndarray, window: int, padded: bool):
    """The values in the window around each voxel: those inside the image, or all with zeros beyond the border."""
    left, right = (window - 1) // 2, window // 2
    if padded:
        image = np.pad(image, [(left, right)] * image.ndim)
        for corner in itertools.product(*[range(n - window + 1) for n in image.shape]):
            yield image[tuple(slice(c, c + window) for c in corner)]
    else:
        for voxel in np.ndindex(image.shape):
            yield image[tuple(slice(max(0, v - left), v + right + 1) for v in voxel)]


def brute_force(fixed: np.ndarray, moving: np.ndarray, window: int, variant: str) -> float:
    """The definition, window by window, about the mean of each."""
    padded, epsilon = (True, 1e-5) if variant == "voxelmorph" else (False, 0)
    found = []
    for f, m in zip(windows(fixed, window, padded), windows(moving, window, padded), strict=True):
        f, m = f - f.mean(), m - m.mean()
        product = (f**2).sum() * (m**2).sum() + epsilon
        found.append((f * m).sum() ** 2 / product if product > 0 else 0)  # 0 / 0: the window is one voxel
    return -np.mean(found)


@per_shape
@per_variant
@pytest.mark.parametrize("window", [2, 3, 4, 5, 9, 12])
def test_lncc_is_the_definition_window_by_window(shape, variant, window, generator):
    """With a mean that is not zero: what lies beyond the border differs from it in the VoxelMorph form."""
    fixed, moving = 2 + noise(generator, 2, 2, *shape), noise(generator, 2, 2, *shape) - 1
    pairs = zip(fixed.flatten(0, 1).numpy(), moving.flatten(0, 1).numpy(), strict=True)
    expected = np.mean([brute_force(f, m, window, variant) for f, m in pairs])
    assert lncc(fixed, moving, window, variant).item() == pytest.approx(expected, rel=1e-10)
    with reference_only():
        assert lncc(fixed, moving, window, variant).item() == pytest.approx(expected, rel=1e-10)


@per_variant
def test_epsilon_counts_where_contrast_is_small(variant, generator):
    """V W is near 1e-5 here: the VoxelMorph form damps it and the other does not."""
    fixed, moving = (0.02 * noise(generator, 6, 7) for _ in range(2))
    expected = brute_force(fixed.numpy(), moving.numpy(), 3, variant)
    assert lncc(fixed[None, None], moving[None, None], 3, variant).item() == pytest.approx(expected, rel=1e-10)


def test_the_default_is_a_box_of_nine_that_counts_voxels_inside(generator):
    fixed, moving = noise(generator, 1, 1, 12, 11), noise(generator, 1, 1, 12, 11)
    assert lncc(fixed, moving) == lncc(fixed, moving, 9, "ants", "box")


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_lncc_agrees_with_itk_up_to_and_at_the_border(radius, generator):
    """The CC metric of ANTs, at every voxel, with windows cut off at the border as ours are."""
    sitk = pytest.importorskip("SimpleITK")
    fixed, moving = (gaussian_filter(generator.standard_normal((11, 9, 10)), 0.7) for _ in range(2))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsANTSNeighborhoodCorrelation(radius)
    method.SetInitialTransform(sitk.Transform(3, sitk.sitkIdentity))
    method.SetInterpolator(sitk.sitkLinear)
    expected = method.MetricEvaluate(sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moving))
    found = lncc(torch.from_numpy(fixed)[None, None], torch.from_numpy(moving)[None, None], 2 * radius + 1)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("window", [3, 9])
def test_lncc_agrees_with_monai(window, generator):
    """MONAI pads with zeros and divides by window³ everywhere, as the VoxelMorph form does.

    It raises each variance to 1e-5 instead of adding 1e-5 to their product: no difference at this contrast.
    """
    losses = pytest.importorskip("monai.losses")
    oracle = losses.LocalNormalizedCrossCorrelationLoss(spatial_dims=3, kernel_size=window)
    fixed, moving = 50 * noise(generator, 2, 1, 10, 12, 11) + 20, 50 * noise(generator, 2, 1, 10, 12, 11)
    found = lncc(fixed, moving, window, "voxelmorph")
    assert found.item() == pytest.approx(oracle(moving, fixed).item(), rel=1e-8)


def test_away_from_the_border_both_variants_agree_with_monai(generator):
    """An image whose margin of zeros is wider than the window: nothing is cut off, and flat windows count 0."""
    losses = pytest.importorskip("monai.losses")
    oracle = losses.LocalNormalizedCrossCorrelationLoss(spatial_dims=2, kernel_size=5)
    fixed, moving = (torch.zeros(1, 1, 24, 22, dtype=torch.float64) for _ in range(2))
    for image in (fixed, moving):
        image[..., 6:-6, 6:-6] = 10 + 50 * noise(generator, 12, 10)
    expected = oracle(moving, fixed).item()
    for variant in ("ants", "voxelmorph"):
        assert lncc(fixed, moving, 5, variant).item() == pytest.approx(expected, rel=1e-8)


def peers():
    """The module of other packages' forms; ``benchmarks`` is no package."""
    path = ROOT / "benchmarks" / "peers.py"
    if not path.is_file():
        pytest.skip("the benchmarks are not here")
    spec = importlib.util.spec_from_file_location("peers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("window", [3, 9])
def test_lncc_agrees_with_the_dense_form_of_voxelmorph(window, generator):
    """Five dense convolutions in float32: on noise about zero they lose four digits of seven."""
    fixed, moving = (noise(generator, 1, 1, 10, 12, 11, dtype=torch.float32) for _ in range(2))
    expected = peers().lncc_dense(fixed, moving, window)
    assert lncc(fixed, moving, window, "voxelmorph").item() == pytest.approx(expected.item(), rel=1e-4)


@per_shape
@per_variant
@pytest.mark.parametrize("window", [3, 4, 9])
def test_gaussian_windows_agree_with_scipy(shape, variant, window, generator):
    fixed, moving = 2 + noise(generator, *shape), noise(generator, *shape) - 1
    offsets = np.arange(-((window - 1) // 2), window // 2 + 1)
    weights = np.exp(-0.5 * (offsets / (window / 6)) ** 2)
    weights *= window / weights.sum()

    def total(values):
        for axis in range(values.ndim):
            values = correlate1d(values, weights, axis, mode="constant", origin=0 if window % 2 else -1)
        return values

    f, m = fixed.numpy(), moving.numpy()
    count = total(np.ones(shape)) if variant == "ants" else window ** len(shape)
    cross = total(f * m) - total(f) * total(m) / count
    product = (total(f * f) - total(f) ** 2 / count) * (total(m * m) - total(m) ** 2 / count)
    expected = -(cross**2 / (product + (1e-5 if variant == "voxelmorph" else 0))).mean()
    found = lncc(fixed[None, None], moving[None, None], window, variant, "gaussian")
    assert found.item() == pytest.approx(expected, rel=1e-9)


@per_shape
def test_gaussian_windows_have_the_right_gradient(shape, generator):
    images = [noise(generator, 1, 1, *(n - 2 for n in shape)).requires_grad_() for _ in range(2)]
    for variant in ("ants", "voxelmorph"):
        torch.autograd.gradcheck(lambda f, m, v=variant: lncc(f, m, 3, v, "gaussian"), images)


# ---- images that break the usual form


def hard_images() -> dict[str, torch.Tensor]:
    """Images (1, 1, 14, 13, 12) in float32 whose variances are nothing, or next to nothing beside their squares."""
    generator = np.random.default_rng(7)
    texture = noise(generator, 1, 1, 14, 13, 12, dtype=torch.float32)
    half_flat = texture.clone()
    half_flat[..., :7, :, :] = 1000.1
    block = torch.zeros_like(texture)
    block[..., 4:9, 4:9, 4:9] = texture[..., 4:9, 4:9, 4:9]
    one_voxel = torch.full_like(texture, 0.1)
    one_voxel[0, 0, 7, 6, 6] = 1e4
    ramp = torch.arange(14.0).view(14, 1, 1).expand(1, 1, 14, 13, 12)
    return {
        "zero": torch.zeros_like(texture),
        "flat": torch.full_like(texture, 1000.1),
        "flat and negative": torch.full_like(texture, -0.1),
        "half flat": half_flat,
        "a block on zero": block,
        "one bright voxel": one_voxel,
        "noise on a huge offset": texture + 1e6,
        "tiny amplitude": 1e-12 * texture,
        "tiny amplitude on an offset": 1 + 1e-7 * texture,
        "a ramp on an offset": 1e4 + ramp,
        "texture": texture,
    }


def test_lncc_never_leaves_its_range_where_the_unclamped_form_reaches_minus_2233():
    """On every pair of hard images −1 ≤ lncc ≤ 0 with finite gradients, in both variants and both window shapes."""
    images = hard_images()
    for (first, fixed), (second, moving) in itertools.product(images.items(), repeat=2):
        for variant, shape in itertools.product(("ants", "voxelmorph"), ("box", "gaussian")):
            if shape == "gaussian" and first > second:
                continue  # slower, and symmetric
            leaves = [image.clone().requires_grad_() for image in (fixed, moving)]
            loss = lncc(*leaves, 5, variant, shape)
            loss.backward()
            case = f"{first}, {second}, {variant}, {shape}: {loss.item()}"
            assert -1 <= loss.item() <= 0, case
            assert all(leaf.grad.isfinite().all() for leaf in leaves), case


@per_variant
def test_gradients_are_finite_beside_a_huge_amplitude(variant):
    """Where cc² is cut off at 1, or a variance at 0, the gradient through it is zero and not large beyond float32."""
    huge = 1e15 * hard_images()["texture"]
    for name, image in hard_images().items():
        leaves = [x.clone().requires_grad_() for x in (image, huge)]
        loss = lncc(*leaves, 5, variant)
        loss.backward()
        assert -1 <= loss.item() <= 0
        assert all(leaf.grad.isfinite().all() for leaf in leaves), name


def test_the_unclamped_form_in_float32_does_leave_the_range_on_these_images():
    """The defect that the test above is about is there for these very images."""
    dense, images = peers().lncc_dense, hard_images()
    values = {pair: dense(images[pair[0]], images[pair[1]], 5).item() for pair in itertools.product(images, repeat=2)}
    wrong = {pair for pair, value in values.items() if not -1.001 <= value <= 0.001}
    assert len(wrong) >= 3
    assert {name for pair in wrong for name in pair} >= {"half flat", "noise on a huge offset"}


@pytest.mark.parametrize("context", ["kernel", "reference"])
def test_a_flat_image_is_like_nothing_and_gives_no_gradient(context):
    images = hard_images()
    for name in ("zero", "flat", "flat and negative"):
        leaf = images["texture"].clone().requires_grad_()
        if context == "kernel":
            loss = lncc(images[name], leaf, 5)
        else:
            with reference_only():
                loss = lncc(images[name], leaf, 5)
        loss.backward()
        assert loss.item() == 0 and not leaf.grad.any()


def test_a_flat_half_counts_nothing_and_the_other_half_everything():
    """Windows of 3 that lie in the flat half score 0; all the others, of an image with itself, 1."""
    image = hard_images()["half flat"]
    assert lncc(image, image, 3).item() == pytest.approx(-8 / 14, abs=1e-6)


@pytest.mark.parametrize("name", ["noise on a huge offset", "tiny amplitude", "tiny amplitude on an offset"])
def test_neither_an_offset_nor_the_amplitude_costs_precision(name):
    """The value is that of the same numbers in float64, taken window by window."""
    fixed, moving = hard_images()[name][..., :6, :5, :4], hard_images()["texture"][..., :6, :5, :4] + 1e6
    expected = brute_force(*(x[0, 0].double().numpy() for x in (fixed, moving)), 3, "ants")
    assert lncc(fixed, moving, 3).item() == pytest.approx(expected, rel=1e-6)


# ---- properties


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    scale=st.floats(1e-3, 1e3),
    sign=st.sampled_from([-1, 1]),
    offset=st.floats(-1e3, 1e3),
    window=st.integers(2, 7),
    which=st.sampled_from([0, 1]),
)
def test_lncc_does_not_change_with_the_scale_and_offset_of_an_image(seed, scale, sign, offset, window, which):
    """An offset that is n times the contrast costs n² of the 16 digits of the sums."""
    generator = np.random.default_rng(seed)
    images = [noise(generator, 1, 1, 6, 5, 7) for _ in range(2)]
    expected = lncc(*images, window).item()
    images[which] = sign * scale * images[which] + offset * scale
    assert lncc(*images, window).item() == pytest.approx(expected, abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), window=st.integers(2, 7), variant=st.sampled_from(["ants", "voxelmorph"]))
def test_lncc_is_symmetric_and_in_its_range(seed, window, variant):
    generator = np.random.default_rng(seed)
    fixed, moving = noise(generator, 1, 2, 8, 5), noise(generator, 1, 2, 8, 5)
    loss = lncc(fixed, moving, window, variant).item()
    assert -1 < loss < 0
    assert loss == pytest.approx(lncc(moving, fixed, window, variant).item(), rel=1e-12)


@per_shape
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_image_is_perfectly_correlated_with_itself_and_its_negative(shape, dtype, generator):
    image = noise(generator, 1, 1, *shape, dtype=dtype)
    for other in (image, -image, 3 * image + 2):
        assert lncc(image, other, 3).item() == pytest.approx(-1, abs=1e-6)
        assert lncc(image, other, 3).item() >= -1


def test_rounding_does_not_take_a_perfect_correlation_below_minus_one(generator):
    for _ in range(50):
        image = noise(generator, 1, 1, 6, 5)
        assert lncc(image, 3 * image, 3).item() >= -1


# ---- types


@pytest.mark.parametrize("shape", ["box", "gaussian"])
@per_variant
def test_autocast_changes_nothing(variant, shape, generator):
    fixed, moving = (noise(generator, 1, 1, 6, 5, 7, dtype=torch.float32) + 100 for _ in range(2))
    expected = lncc(fixed, moving, 3, variant, shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lncc(fixed, moving, 3, variant, shape), expected)
        with reference_only():
            assert lncc(fixed, moving, 3, variant, shape).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_of_narrow_types_are_compared_in_float64(dtype, generator):
    """The value is that of the rounded images; the gradient comes back in their type."""
    fixed, moving = (noise(generator, 1, 1, 6, 5, 7).to(dtype) + 2 for _ in range(2))
    moving.requires_grad_()
    loss = lncc(fixed, moving, 3)
    loss.backward()
    wide = moving.detach().double().requires_grad_()
    expected = lncc(fixed.double(), wide, 3)
    expected.backward()
    assert loss.dtype == torch.float32 and moving.grad.dtype == dtype
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    tolerance = torch.finfo(dtype).eps * wide.grad.abs().max().item()
    torch.testing.assert_close(moving.grad.double(), wide.grad, rtol=0, atol=tolerance)


def test_wrong_arguments_are_refused_by_name():
    image = torch.zeros(1, 1, 4, 5)
    with pytest.raises(ValueError, match=r"moving \(1, 1, 5, 4\) must have the shape of fixed \(1, 1, 4, 5\)"):
        lncc(image, image.mT)
    with pytest.raises(ValueError, match=r"fixed \(4, 5\) must be \(batch, channel"):
        lncc(image[0, 0], image[0, 0])
    with pytest.raises(ValueError, match="window must be 2 voxels or more, not 1"):
        lncc(image, image, 1)
    with pytest.raises(ValueError, match="variant must be one of ants, voxelmorph, not 'vxm'"):
        lncc(image, image, variant="vxm")
    with pytest.raises(ValueError, match="shape must be 'box' or 'gaussian', not 'ball'"):
        lncc(image, image, shape="ball")
