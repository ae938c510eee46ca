"""TransMorph: windows of attention by brute force, sizes, and fields that are composed of steps."""

import itertools
import math

import pytest
import torch

from regcore.errors import InputError
from regcore.losses import diffusion
from regcore.methods import make_method
from regcore.networks import transmorph
from regcore.networks.swin import Block, Merging, SwinEncoder, partition, unpartition, window_offsets
from regcore.networks.transmorph import TransMorph, window_for
from regcore.spatial import sample


@pytest.mark.parametrize(("grid", "window"), [((6, 8), (3, 2)), ((4, 6, 4), (2, 3, 4))], ids=["2-D", "3-D"])
def test_windows_are_boxes_of_neighbours(grid, window):
    places = (
        torch.stack(torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij"), -1)[None]
        .repeat(2, 1, 1, 1, *[1] * (len(grid) - 2))
        .float()
    )
    parts = partition(places, window)
    assert parts.shape == (2 * math.prod(grid) // math.prod(window), math.prod(window), len(grid))
    for part in parts:
        assert (part.amax(0) - part.amin(0) == torch.tensor(window) - 1).all() and len(part.unique(dim=0)) == len(part)
    assert torch.equal(unpartition(parts, window, places.shape), places)


def test_equal_offsets_share_a_bias():
    index = window_offsets((3, 4))
    places = list(itertools.product(range(3), range(4)))
    found = {}
    for (i, a), (j, b) in itertools.product(enumerate(places), repeat=2):
        found.setdefault((a[0] - b[0], a[1] - b[1]), set()).add(int(index[i, j]))
    assert all(len(numbers) == 1 for numbers in found.values())
    assert len(set.union(*found.values())) == len(found) == 5 * 7


@pytest.mark.parametrize(
    ("grid", "window"), [((6, 8), (3, 4)), ((6, 4), (3, 4)), ((4, 4, 6), (2, 4, 3))], ids=["2-D", "one window", "3-D"]
)
@pytest.mark.parametrize("shifted", [False, True])
def test_attention_is_that_of_the_tokens_that_share_a_window(grid, window, shifted):
    """Every token on its own: softmax over those that lie in its window and were not brought there by the roll."""
    torch.manual_seed(0)
    block = Block(8, 2, window, shifted, 0).double().eval()
    tokens = torch.randn(1, *grid, 8, dtype=torch.float64)
    shift = [w // 2 if shifted and n > w else 0 for n, w in zip(grid, window, strict=True)]
    attention = block.attention
    q, k, v = attention.qkv(tokens).view(*grid, 3, 2, 4).movedim(-3, 0)
    expected = torch.zeros(*grid, 8, dtype=torch.float64)

    def home(place):
        """The window of a token, whose borders the shift has moved; those at the edge are cut, not wrapped."""
        return tuple((x + w - s) // w if s else x // w for x, w, s in zip(place, window, shift, strict=True))

    places = list(itertools.product(*map(range, grid)))
    offsets = window_offsets(window)
    for place in places:
        own = [other for other in places if home(other) == home(place)]

        def number(other):
            inside = [(x - s) % w for x, w, s in zip(other, window, shift, strict=True)]
            return sum(x * math.prod(window[axis + 1 :]) for axis, x in enumerate(inside))

        bias = torch.stack([attention.bias[offsets[number(place), number(other)]] for other in own])
        logits = torch.stack([(q[place] * k[other]).sum(-1) / 2 for other in own]) + bias
        shares = logits.softmax(0)
        expected[place] = sum(share[:, None] * v[other] for share, other in zip(shares, own, strict=True)).flatten()
    torch.testing.assert_close(block._attended(tokens)[0], attention.project(expected))


def test_odd_grids_are_padded():
    torch.manual_seed(0)
    assert Merging(2, 4)(torch.randn(1, 5, 6, 4)).shape == (1, 3, 3, 8)
    assert Block(8, 2, (3, 4), True, 0)(torch.randn(1, 5, 6, 8)).shape == (1, 5, 6, 8)


def test_checkpointing_changes_nothing_but_memory():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = SwinEncoder(2, (2, 2), 8, (2, 2), (2, 2), drop_path=0, checkpointing=checkpointing)
        sum(features.square().sum() for features in encoder(torch.ones(1, 2, 32, 32))).backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_paths_are_dropped_in_training_alone_and_make_up_for_it():
    torch.manual_seed(0)
    block = Block(8, 2, (2, 2), False, 0.25)
    ones = torch.ones(4000, 1, 1, 1)
    dropped = block._dropped(ones)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 4 / 3]))
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(block.eval()._dropped(ones), ones)


def test_the_authors_network_has_as_many_weights():
    with torch.device("meta"):
        network = TransMorph(3, window_for((160, 192, 224)))
    assert sum(parameter.numel() for parameter in network.parameters()) == 17_574_333


@pytest.mark.parametrize("shape", [(64, 96), (32, 64, 32)], ids=["2-D", "3-D"])
def test_the_field_is_at_half_resolution_and_every_weight_takes_part(shape):
    torch.manual_seed(0)
    network = TransMorph(len(shape), window_for(shape), "tiny", steps=2, drop_path=0)
    flow = network(torch.rand(2, 2, *shape))
    assert flow.shape == (2, len(shape), *[n // 2 for n in shape]) and flow.abs().max() < 0.1
    flow.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("composition", ["paper", "code"])
def test_steps_move_the_image_that_those_before_have_warped(composition, monkeypatch):
    """The image is warped first by u, then by v: as maps, the field is v + u ∘ (id + v)."""
    torch.manual_seed(0)
    network = TransMorph(2, (1, 1), "tiny", steps=2, compose=composition, norm="instance").eval()
    u, v = (torch.nn.functional.interpolate(torch.randn(1, 2, 4, 4), (16, 16), mode="bilinear") for _ in range(2))
    seen = []
    for head, step in zip(network.heads, (u, v), strict=True):
        monkeypatch.setattr(head, "forward", lambda features, step=step: step)
    for look in network.looks:
        look.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, :1]))
    pair = torch.rand(1, 2, 32, 32)
    flow = network(pair)
    here = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))[None]
    inside = (slice(None), slice(None), slice(4, 12), slice(4, 12))
    at_v = sample(u if composition == "paper" else v, here + v)
    expected = (v if composition == "paper" else u) + at_v
    torch.testing.assert_close(flow[inside], expected[inside])
    half = torch.nn.functional.avg_pool2d(pair, 3, 2, 1)
    torch.testing.assert_close(seen[0], half[:, :1])
    torch.testing.assert_close(seen[1], sample(half[:, :1], here + u))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "huge"}, "size must be one of regular, small, tiny"),
        ({"compose": "sum"}, "compose must be one of paper, code"),
        ({"norm": "none"}, "norm must be one of batch, instance"),
        ({"window": (1, 1, 1)}, "window must be 2 numbers of tokens"),
        ({"steps": 0}, "steps must be 1 or more"),
    ],
)
def test_an_impossible_network_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TransMorph(**{"ndim": 2, "window": (1, 1), **wrong})


def test_heads_share_the_features_of_a_stage():
    with pytest.raises(ValueError, match="3 heads cannot share 8 features"):
        Block(8, 3, (2, 2), False, 0)


# ---- the method


def test_windows_follow_the_size_of_the_training_images():
    assert window_for((160, 192, 224)) == [5, 6, 7] and window_for((33, 64)) == [2, 2]
    method = make_method("transmorph", {"size": "tiny"})
    method.fit_to((96, 60))
    assert method.settings.attention == [3, 2]
    method.fit_to((32, 32))
    assert method.settings.attention == [3, 2], "settled once, as the model's weights are"
    with pytest.raises(InputError, match="must have 3 numbers"):
        method.fit_to((32, 32, 32))


def test_images_of_any_size_are_registered():
    torch.manual_seed(0)
    method = make_method("transmorph", {"size": "tiny", "time_steps": 2})
    method.fit_to((60, 44))
    module = method.build(2).eval()
    fixed, moving = torch.rand(2, 1, 1, 50, 71)
    with torch.inference_mode():
        displacement, inverse = method.displacements(method.predict(module, fixed, moving), fixed)
    assert displacement.shape == inverse.shape == (1, 2, 50, 71)


def test_smoothness_is_that_of_the_displacement():
    torch.manual_seed(0)
    method = make_method("transmorph", {"size": "tiny", "lambda": 3})
    batch = dict(zip(("fixed", "moving"), torch.rand(2, 1, 1, 32, 32), strict=True))
    flow = torch.randn(1, 2, 16, 16)
    losses = method.losses(flow, batch)
    expected = diffusion(method.displacement(flow, batch["fixed"]))
    torch.testing.assert_close(losses["diffusion"], expected)
    torch.testing.assert_close(losses["total"], losses["lncc"] + 3 * expected)


def test_sizes_are_named():
    assert set(transmorph.SIZES) == {"regular", "small", "tiny"}
