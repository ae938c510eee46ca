"""AutoReg's cells: operations against SciPy, paths of the super-network, architecture files."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from support.cells import MEDIUM, awake, drawn

from regcore.errors import InputError
from regcore.networks.architecture import CANDIDATES, DEFORMATION, FEATURE, MANUAL, OPERATIONS, Architecture
from regcore.networks.cells import SLOPE, CellNetwork, operation
from regcore.spatial import resample_displacement

BOTH = (FEATURE, DEFORMATION)


def correlated(image, kernels):
    """Convolutional layer with zeros beyond the border: (C, *space), (F, C, k, …) → (F, *space)."""
    flip = (slice(None, None, -1),) * (image.ndim - 1)
    return np.stack(
        [sum(convolve(x, k[flip], mode="constant") for x, k in zip(image, ks, strict=True)) for ks in kernels]
    )


def dilated(kernels, ndim):
    """Kernels with zeros between their taps."""
    size = kernels.shape[-1]
    wide = np.zeros((*kernels.shape[:2], *[2 * size - 1] * ndim))
    wide[(..., *[slice(None, None, 2)] * ndim)] = kernels
    return wide


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("separable", ["true", "code"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_the_convolutions_that_they_are_called(name, separable, ndim):
    torch.manual_seed(0)
    layers = operation(ndim, name, 2, 3, 1, separable).double()
    x = torch.randn(1, 2, *[9] * ndim, dtype=torch.float64)
    kernels = [layer.weight.detach().numpy() for layer in layers if hasattr(layer, "weight")]
    steps = []
    if name.endswith("DConv"):
        steps = [(dilated(kernels[0], ndim), True)]
    elif name.endswith("SConv"):
        full = [(kernels[0], True)] if separable == "code" else []
        apart, mixing = kernels[-2:]
        each = np.zeros((2, *apart.shape[:1], *apart.shape[2:]))
        each[range(2), range(2)] = apart[:, 0]
        steps = [*full, (each, False), (mixing, True)]
    else:
        steps = [(kernels[0], True)]
    expected = x[0].numpy()
    for kernel, active in steps:
        expected = correlated(expected, kernel)
        if name.endswith("DConv"):
            expected = expected + layers[0].bias.detach().numpy().reshape(-1, *[1] * ndim)
        if active:
            expected = np.where(expected > 0, expected, SLOPE * expected)
    np.testing.assert_allclose(layers(x)[0].detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_halves_alike(name):
    for size in (8, 12):
        assert operation(2, name, 1, 4, 2, "true")(torch.zeros(1, 1, size, size)).shape == (1, 4, size // 2, size // 2)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("downsampling", ["first", "last"])
def test_network_finds_velocities_at_two_scales(ndim, downsampling):
    torch.manual_seed(0)
    network = awake(CellNetwork(ndim, MEDIUM, channels=4, downsampling=downsampling))
    flow = network(torch.rand(2, 2, *[16, 12, 8][:ndim]))
    assert flow.shape == (2, 2 * ndim, *[8, 6, 4][:ndim])
    coarse = flow[:, ndim:]
    every_other = coarse[(slice(None), slice(None), *[slice(None, None, 2)] * ndim)]
    for axis in range(2, ndim + 2):
        every_other = every_other.repeat_interleave(2, axis)
    assert torch.equal(coarse, every_other)


def test_fine_velocity_begins_at_the_coarse_one():
    network = CellNetwork(2, MEDIUM, channels=4)
    torch.nn.init.zeros_(network.head.convolution.weight)
    torch.nn.init.ones_(network.head.convolution.bias)
    flow = network(torch.rand(1, 2, 16, 16))
    up = resample_displacement(flow[:, 2:, ::2, ::2], (8, 8))
    torch.testing.assert_close(flow[:, :2], up + 1)


def test_images_have_weights_of_their_own():
    """One architecture for both images, but not the same weights (Section III-B)."""
    network = CellNetwork(2, MEDIUM, channels=4)
    moving, fixed = network.moving_features.state_dict(), network.fixed_features.state_dict()
    assert moving.keys() == fixed.keys()
    assert not any(torch.equal(moving[name], fixed[name]) for name in moving)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("mixed", [(FEATURE,), (DEFORMATION,), BOTH], ids=["feature", "deformation", "both"])
@pytest.mark.parametrize("separable", ["true", "code"])
def test_discrete_network_is_the_path_of_the_super_network(ndim, mixed, separable, generator):
    torch.manual_seed(0)
    path = drawn(generator)
    network = awake(CellNetwork(ndim, path, mixed, channels=2, separable=separable))
    discrete = CellNetwork(ndim, path, channels=2, separable=separable)
    weights = network.state_dict()  # both call a weight the same
    discrete.load_state_dict({name: weights[name] for name in discrete.state_dict()})
    pair = torch.rand(1, 2, *[16, 16, 8][:ndim])
    assert torch.equal(discrete(pair), network(pair, path))
    assert not torch.equal(discrete(pair), network(pair))


def test_argmax_of_the_mixtures_is_the_architecture(generator):
    path = drawn(generator)
    network = awake(CellNetwork(2, MEDIUM, BOTH, channels=2))
    assert all(torch.equal(mixture, torch.zeros(6, 8)) for mixture in network.mixtures.values())
    names = list(CANDIDATES)
    with torch.no_grad():
        for kind, mixture in network.mixtures.items():
            for row, (_, _, name) in enumerate(path.edges(kind)):
                mixture[row, names.index(name)] = 60
    assert network.chosen() == path
    pair = torch.rand(1, 2, 16, 16)
    torch.testing.assert_close(network(pair), network(pair, path))


def test_mixture_is_the_weighed_sum_of_its_candidates():
    torch.manual_seed(0)
    network = CellNetwork(2, MEDIUM, (FEATURE,), channels=2)
    cell = network.moving_features["at_half"]
    x, weights = torch.rand(1, 1, 8, 8), torch.rand(3, 8).softmax(1)
    expected = x
    for edge, row in zip(cell.edges, weights, strict=True):
        expected = torch.stack([w * candidate(expected) for w, candidate in zip(row, edge.values(), strict=True)]).sum(
            0
        )
    torch.testing.assert_close(cell(x, weights), expected)


@pytest.mark.slow
def test_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    plain = awake(CellNetwork(2, MEDIUM, BOTH, channels=2))
    saving = CellNetwork(2, MEDIUM, BOTH, channels=2, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    pair = torch.rand(1, 2, 16, 16)
    for network in (plain, saving):
        network(pair).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_weights_are_all_but_the_mixtures():
    network = CellNetwork(2, MEDIUM, BOTH, channels=2)
    own = {id(value) for value in network.weights()}
    assert own.isdisjoint(map(id, network.mixtures.values()))
    assert len(own) + 2 == len(list(network.parameters()))


def test_networks_by_hand_grow():
    counts = [
        sum(p.numel() for p in CellNetwork(2, Architecture.uniform(name)).parameters()) for name in MANUAL.values()
    ]
    assert all(small < large for small, large in pairwise(counts))


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="separable must be one of true, code, not 'yes'"):
        CellNetwork(2, MEDIUM, separable="yes")
    with pytest.raises(ValueError, match="downsampling must be one of first, last"):
        CellNetwork(2, MEDIUM, downsampling="middle")


def test_architecture_file_round_trip(tmp_path, generator):
    path = drawn(generator)
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({**path.as_json(), "objective": {"lambda1": 0.5}}))
    assert Architecture.read(file) == path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a["feature"]["half"].__setitem__(1, "3-SCnov"),
            "feature.half, edge 2: unknown operation '3-SCnov'; did you mean '3-SConv'",
        ),
        (lambda a: a["feature"]["half"].pop(), "feature.half: a cell has 3 edges, one operation on each; found 2"),
        (lambda a: a["deformation"].pop("half"), "deformation: the cell 'half' is missing"),
        (lambda a: a.pop("feature"), "the cell 'feature' is missing"),
        (lambda a: a.update(warp=1), "unknown cell 'warp'"),
        (lambda a: a.update(feature=[]), "expected {half: …, quarter: …}, found"),
        (lambda a: a["feature"].update(half="3-Conv"), "a cell has 3 edges, one operation on each; found '3-Conv'"),
    ],
)
def test_what_is_wrong_in_an_architecture_file_is_named(tmp_path, change, message):
    content = MEDIUM.as_json()
    change(content)
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        Architecture.read(file)
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)


def test_files_that_are_no_architecture_are_named(tmp_path):
    with pytest.raises(
        InputError, match=r"none\.json: no such file; give an architecture file, or one of manual-small"
    ):
        Architecture.read(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(InputError, match=r"torn\.json: not valid JSON"):
        Architecture.read(tmp_path / "torn.json")
