"""A training step recorded as a CUDA graph: what is refused, and on a GPU that it gives the same weights."""

import copy

import pytest
import torch

from regcore.errors import InputError
from regcore.methods import make_method
from regcore.training.step import GradientStep


def batches(count: int, shape=(16, 24, 32)):
    generator = torch.Generator().manual_seed(0)
    return [{side: torch.rand(1, 1, *shape, generator=generator) for side in ("fixed", "moving")} for _ in range(count)]


def gradients(step: GradientStep, batch) -> list[torch.Tensor]:
    step.clear()
    losses = {name: value.clone() for name, value in step(batch).items()}
    return [losses["total"], *(parameter.grad.clone() for parameter in step.module.parameters())]


@pytest.mark.parametrize("name", ["synthmorph", "hypermorph", "autoreg"])
def test_methods_whose_step_draws_on_the_cpu_cannot_be_recorded(name):
    with pytest.raises(InputError, match="'record' does not work"):
        make_method(name, {"record": True})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("voxelmorph", {"augmentation": "deformations"}),
        ("voxelmorph", {"flips": True}),
        ("voxelmorph", {"passes": 3}),
        ("transmorph", {"passes": 2}),
        ("transmorph", {"checkpointing": True}),
        ("spr", {"checkpointing": True}),
    ],
)
def test_settings_that_draw_or_keep_checkpoints_cannot_be_recorded(name, settings):
    assert make_method(name, {"record": True}).settings.record
    with pytest.raises(InputError, match="'record' does not work"):
        make_method(name, {"record": True, **settings})


@pytest.mark.slow
def test_gradients_of_parts_add_up_to_that_of_the_batch():
    method = make_method("voxelmorph", {"lambda": 0.1})
    torch.manual_seed(0)
    module = method.build(3)
    whole, parts = (GradientStep(method, module, module, count, recorded=False) for count in (1, 2))
    first, second = batches(2)
    one, other = gradients(whole, first), gradients(whole, second)
    parts.clear()
    for batch in (first, second):
        parts(batch)
    for a, b, parameter in zip(one[1:], other[1:], module.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, (a + b) / 2)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_recorded_step_gives_the_gradients_of_one_that_is_not(precision):
    from regcore.training.forward import forward

    method = make_method("voxelmorph", {"lambda": 0.1, "precision": precision})
    torch.manual_seed(0)
    modules = [method.build(3).cuda()] * 2
    modules[1] = copy.deepcopy(modules[0])
    plain, recorded = (
        GradientStep(method, module, forward(module, torch.device("cuda"), precision), 1, recorded)
        for module, recorded in zip(modules, (False, True), strict=True)
    )
    for number, batch in enumerate(batches(3)):
        batch = {side: image.cuda() for side, image in batch.items()}
        expected, found = gradients(plain, batch), gradients(recorded, batch)
        assert len(recorded._recordings) == 1, f"batch {number} was recorded anew"
        for a, b in zip(found, expected, strict=True):
            assert (a - b).norm() <= (1e-4 if precision == "float32" else 2e-2) * b.norm()


@pytest.mark.gpu
def test_a_recorded_registration_is_the_one_that_is_not(monkeypatch):
    import regcore.methods.instance as module

    images = [image.cuda() for image in batches(1, (40, 48, 56))[0].values()]
    images = [torch.nn.functional.avg_pool3d(image, 5, 1, 2) for image in images]
    spacing = module.np.ones(3)
    method = make_method("instance", {"iterations": [10, 10], "shrink": [2, 1]})
    recorded = [method.optimise(*images, spacing)[0] for _ in range(2)]
    monkeypatch.setattr(module._RecordedDescent, "iterate", module._Descent.iterate)
    plain = method.optimise(*images, spacing)[0]
    for found in recorded:
        # Float atomics add in no particular order, and every iteration follows the one before.
        assert (found - plain).norm() <= 1e-2 * plain.norm()
