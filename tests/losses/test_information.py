"""Normalised mutual information against histograms, scikit-image, SciPy and MONAI, its gradient and its memory."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regcore.kernels import joint_histogram as kernel
from regcore.losses import nmi

SHAPES = [(8, 7), (5, 6, 7)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
BINS = 8
# So narrow that an intensity on the centre of a bin has nothing in the next: exp(−1 / 2 · 0.05²) = 1e-87.
NARROW = 0.05


def level_pair(generator, shape, batch=1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two related images (batch, 1, *shape), float64, of whole numbers that span 0 to BINS − 1."""
    fixed = generator.integers(0, BINS, (batch, 1, *shape))
    warped = (fixed + generator.integers(0, 3, fixed.shape)) % BINS
    for image in (fixed, warped):
        image.reshape(batch, -1)[:, :2] = 0, BINS - 1
    return torch.from_numpy(fixed).double(), torch.from_numpy(warped).double()


def smooth_pair(generator, shape, batch=1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two related images (batch, 1, *shape), float64, strictly inside 0 to 1."""
    fixed = torch.from_numpy(generator.uniform(0.05, 0.95, (batch, 1, *shape)))
    noise = torch.from_numpy(generator.uniform(-0.05, 0.05, fixed.shape))
    return fixed, (0.5 + 0.4 * (3 * fixed).sin() + noise).clamp(0.01, 0.99)


@per_shape
def test_nmi_of_levels_is_that_of_their_histogram(shape, generator):
    """Every voxel on the centre of a bin and narrow windows: the Parzen estimate is the histogram itself."""
    fixed, warped = level_pair(generator, shape)
    histogram, _, _ = np.histogram2d(fixed.flatten().numpy(), warped.flatten().numpy(), bins=BINS)
    expected = (entropy(histogram.sum(1)) + entropy(histogram.sum(0))) / entropy(histogram.flatten())
    assert nmi(fixed, warped, BINS, NARROW).item() == pytest.approx(-expected, rel=1e-12)


@per_shape
def test_nmi_of_levels_is_that_of_scikit_image(shape, generator):
    oracle = pytest.importorskip("skimage.metrics").normalized_mutual_information
    fixed, warped = level_pair(generator, shape)
    expected = oracle(fixed.numpy(), warped.numpy(), bins=BINS)
    assert nmi(fixed, warped, BINS, NARROW).item() == pytest.approx(-expected, rel=1e-12)


def test_nmi_of_smooth_images_tends_to_that_of_scikit_image(generator):
    """As the window narrows, every intensity goes to its nearest bin.

    With a width of 0.1 bins, only voxels within some 0.02 bins of the edge between two are still shared:
    one in twenty-five, which moves NMI by less than 1 %.
    """
    oracle = pytest.importorskip("skimage.metrics").normalized_mutual_information
    fixed, warped = smooth_pair(generator, (60, 50))
    bins = 16
    limits = [(image.min().item(), image.max().item()) for image in (fixed, warped)]
    rounded = [
        ((image - low) / (high - low) * (bins - 1)).round().numpy()
        for image, (low, high) in zip((fixed, warped), limits, strict=True)
    ]
    expected = oracle(*rounded, bins=bins)
    assert nmi(fixed, warped, bins, width=0.1).item() == pytest.approx(-expected, rel=0.01)
    assert nmi(fixed, warped, bins, width=0.5).item() > -expected  # blurred: less information


@pytest.mark.parametrize("bins, width", [(32, 0.5), (11, 1.3)])
@per_shape
def test_mutual_information_is_that_of_monai(shape, bins, width, generator):
    """H(F) + H(M) − H(F, M) of the same windows; MONAI takes intensities in 0 to 1."""
    monai = pytest.importorskip("monai.losses")
    fixed, warped = smooth_pair(generator, shape, batch=2)
    positions = [image.flatten(1) * (bins - 1) for image in (fixed, warped)]
    joint = kernel.joint_histogram(*positions, bins, width).numpy()
    ours = [entropy(p.sum(1)) + entropy(p.sum(0)) - entropy(p.flatten()) for p in joint]
    oracle = monai.GlobalMutualInformationLoss("gaussian", bins, width, smooth_nr=1e-12, smooth_dr=1e-12)
    assert np.mean(ours) == pytest.approx(-oracle(warped, fixed).item(), rel=1e-5)  # its bins are float32
    expected = np.mean([(entropy(p.sum(1)) + entropy(p.sum(0))) / entropy(p.flatten()) for p in joint])
    loss = nmi(fixed, warped, bins, width, fixed_range=(0, 1), warped_range=(0, 1))
    assert loss.item() == pytest.approx(-expected, rel=1e-12)


def test_nmi_of_images_that_determine_each_other_is_2_and_of_independent_ones_1():
    """All 16 combinations of 4 and 4 levels, once each."""
    levels = torch.arange(4, dtype=torch.float64)
    fixed, warped = (grid[None, None] for grid in torch.meshgrid(levels, levels, indexing="ij"))
    assert nmi(fixed, warped, bins=4, width=NARROW).item() == pytest.approx(-1, abs=1e-12)
    assert nmi(fixed, fixed, bins=4, width=NARROW).item() == pytest.approx(-2, abs=1e-12)
    assert nmi(fixed, (fixed - 1.5).square() + fixed / 2, bins=4, width=NARROW).item() < -1.4


@per_shape
def test_nmi_does_not_change_under_affine_intensities(shape, generator):
    fixed, warped = smooth_pair(generator, shape)
    expected = nmi(fixed, warped).item()
    assert nmi(fixed, 700 * warped + 50).item() == pytest.approx(expected, rel=1e-10)
    assert nmi(0.01 * fixed - 3, -warped).item() == pytest.approx(expected, rel=1e-10)
    assert nmi(warped, fixed).item() == pytest.approx(expected, rel=1e-10)


def test_nmi_hardly_changes_under_a_monotone_map_that_mse_would_not_survive(generator):
    """On levels a monotone map to as many levels is a relabelling of bins: exactly the same."""
    fixed, warped = level_pair(generator, (9, 8))
    remapped = torch.tensor([0.0, 3, 4, 9, 10, 12, 20, 21], dtype=torch.float64)[warped.long()]
    expected = nmi(fixed, warped, BINS, NARROW).item()
    assert nmi(fixed, remapped, bins=22, width=NARROW, fixed_range=(0, 21)).item() == pytest.approx(expected, rel=1e-12)
    fixed, warped = smooth_pair(generator, (60, 50))
    assert nmi(fixed, warped.square()).item() == pytest.approx(nmi(fixed, warped).item(), rel=0.02)


def test_values_beyond_a_given_range_count_as_its_ends(generator):
    fixed, warped = smooth_pair(generator, (8, 7))
    wild = warped.clone()
    wild[0, 0, 0, :2] = torch.tensor([50.0, -50.0])
    tame = warped.clone()
    tame[0, 0, 0, :2] = torch.tensor([1.0, 0.0])
    losses = [nmi(fixed, image, warped_range=(0, 1)).item() for image in (wild, tame)]
    assert losses[0] == losses[1]
    wild.requires_grad_()
    nmi(fixed, wild, warped_range=(0, 1)).backward()
    assert wild.grad[0, 0, 0, :2].tolist() == [0, 0] and wild.grad[0, 0, 1:].abs().min() > 0


@per_shape
@pytest.mark.parametrize("width", [0.5, 1.5])
def test_nmi_has_the_right_gradient(shape, width, generator, monkeypatch):
    monkeypatch.setattr(kernel.reference, "CPU_CHUNK", 50)  # several chunks, the last one shorter
    fixed, warped = smooth_pair(generator, [2 * n // 3 for n in shape], batch=2)

    def loss(fixed, warped):
        return nmi(fixed, warped, bins=6, width=width, fixed_range=(0, 1), warped_range=(-0.2, 1.1))

    torch.autograd.gradcheck(loss, (fixed.requires_grad_(), warped.requires_grad_()))
    torch.autograd.gradcheck(lambda w: loss(fixed.detach(), w), (warped,))


def test_the_default_range_is_a_constant_to_the_gradient(generator):
    fixed, warped = smooth_pair(generator, (8, 7))
    limits = [(image.min().item(), image.max().item()) for image in (fixed, warped)]
    gradients = []
    for ranges in (limits, (None, None)):
        images = [image.clone().requires_grad_() for image in (fixed, warped)]
        nmi(*images, fixed_range=ranges[0], warped_range=ranges[1]).backward()
        gradients.append([image.grad for image in images])
    for explicit, default in zip(*gradients, strict=True):
        torch.testing.assert_close(default, explicit, rtol=1e-9, atol=1e-15)


def test_chunks_do_not_change_the_loss_or_its_gradient(generator, monkeypatch):
    results = []
    for chunk in (10**9, 333, 1):
        monkeypatch.setattr(kernel.reference, "CPU_CHUNK", chunk)
        fixed, warped = smooth_pair(np.random.default_rng(0), (8, 7), batch=2)
        loss = nmi(fixed, warped.requires_grad_())
        loss.backward()
        results.append((loss.detach(), warped.grad))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-10, atol=1e-15)


@per_shape
def test_batch_elements_and_channels_have_their_own_histograms(shape, generator):
    fixed, warped = smooth_pair(generator, shape, batch=3)
    fixed, warped = fixed * torch.tensor([1, 5, 0.2]).view(3, *[1] * (1 + len(shape))), warped
    alone = torch.stack([nmi(fixed[i : i + 1], warped[i : i + 1]) for i in range(3)])
    assert nmi(fixed, warped).item() == pytest.approx(alone.mean().item(), rel=1e-12)
    assert nmi(fixed.transpose(0, 1), warped.transpose(0, 1)).item() == pytest.approx(alone.mean().item(), rel=1e-12)


class LargestTensor(TorchDispatchMode):
    """Remember the largest tensor that any operation gave back."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.untyped_storage().nbytes() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.size = max([self.size, *sizes])
        return out


@pytest.mark.slow
def test_no_tensor_holds_all_windows_of_all_voxels(generator, monkeypatch):
    """The largest tensor is a chunk until an image is larger, and does not know the number of bins."""
    monkeypatch.setattr(kernel.reference, "CPU_CHUNK", 2**12)

    def largest(shape, bins) -> int:
        image = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0))
        fixed, warped = image.clone().requires_grad_(), (1 - image).requires_grad_()
        with LargestTensor() as mode:
            nmi(fixed, warped, bins).backward()
        return mode.size

    chunk = 2**12 * 4
    assert largest((16, 32), bins=32) == chunk
    for bins in (16, 32, 64):
        assert chunk * 0.9 <= largest((32, 32), bins) <= max(chunk, 2 * bins**2 * 4)
        assert largest((20, 40, 30), bins) == 2 * 20 * 40 * 30 * 4  # an image, whatever the number of bins


def test_what_is_kept_for_the_backward_pass_does_not_know_the_bins(generator):
    """Two images in bins, the images' masks of what is in range, and histograms: never the windows."""

    def kept(shape, bins) -> int:
        sizes = []

        def pack(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        fixed, warped = (image.requires_grad_() for image in smooth_pair(generator, shape))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            nmi(fixed, warped, bins, fixed_range=(0, 1), warped_range=(0, 1))
        return sum(sizes)

    image = 30 * 30 * 30 * 8
    for bins in (16, 64):
        assert kept((30, 30, 30), bins) < 5 * image
        grown = kept((30, 30, 60), bins) - kept((30, 30, 30), bins)
        assert grown < 5 * image


@pytest.mark.parametrize("width", [0.5, NARROW, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_images_have_no_information_and_no_gradient(width, dtype, generator):
    constant = torch.full((1, 1, 6, 5), 0.1, dtype=dtype)
    structured = smooth_pair(generator, (6, 5))[0].to(dtype)
    almost = constant * (1 + torch.finfo(dtype).eps * (structured > 0.5))
    for first, second in [(constant, constant), (constant, structured), (structured, constant), (almost, structured)]:
        fixed, warped = first.clone().requires_grad_(), second.clone().requires_grad_()
        loss = nmi(fixed, warped, width=width)
        loss.backward()
        assert loss.item() == pytest.approx(-1, abs=1e-5)
        assert fixed.grad.isfinite().all() and warped.grad.isfinite().all()
        assert fixed.grad[first.std() < 1e-6].abs().sum() == 0
    for constant_range in (0, 1e-40):  # a step of a subnormal number is not a contrast
        assert math.isfinite(nmi(structured, constant_range * structured).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_loss_and_its_gradient_in_float32(dtype, generator):
    fixed, warped = (image.to(dtype) for image in smooth_pair(generator, (8, 7, 6)))
    expected = warped.clone().requires_grad_()
    nmi(fixed, expected).backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nmi(fixed, warped.requires_grad_())
        loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == nmi(fixed, warped).item()
    assert torch.equal(warped.grad, expected.grad)
    assert warped.grad.abs().max() > 0


def test_descending_the_loss_raises_the_information(generator):
    fixed, _ = smooth_pair(generator, (12, 12))
    warped = torch.from_numpy(generator.uniform(0, 1, fixed.shape)).requires_grad_()
    before = nmi(fixed, warped, bins=8)
    optimizer = torch.optim.Adam([warped], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nmi(fixed, warped, bins=8)
        loss.backward()
        optimizer.step()
    assert loss.item() < before.item() - 0.1


def test_nmi_refuses_what_it_cannot_compare():
    image = torch.rand(1, 1, 4, 5)
    with pytest.raises(ValueError, match=r"warped \(1, 1, 5, 4\).*fixed \(1, 1, 4, 5\)"):
        nmi(image, torch.rand(1, 1, 5, 4))
    with pytest.raises(ValueError, match=r"fixed \(4, 5\)"):
        nmi(image[0, 0], image[0, 0])
    with pytest.raises(ValueError, match="bins=1"):
        nmi(image, image, bins=1)
    with pytest.raises(ValueError, match="width=0"):
        nmi(image, image, width=0)
    with pytest.raises(ValueError, match="warped_range"):
        nmi(image, image, warped_range=(1, 1))
    for bad in (math.nan, math.inf, -math.inf):
        broken = image.clone()
        broken[0, 0, 2, 2] = bad
        for limits in (None, (0, 1)):
            with pytest.raises(ValueError, match=r"fixed .* holds 1 value"):
                nmi(broken, image, fixed_range=limits)
            with pytest.raises(ValueError, match=r"warped .* holds 1 value"):
                nmi(image, broken, warped_range=limits)
