"""The Numba kernels of label overlaps against the reference, and the memory that soft Dice takes."""

import torch
from support.kernel_cases import (
    WARPS,
    Entered,
    assert_kernel_is_reference,
    displacements,
    label_map,
    needs_numba,
    normal,
    overlaps,
    per_context,
    per_shape,
    per_type,
    saved_by,
)

from regcore.kernels import label_dice
from regcore.losses import soft_dice

pytestmark = needs_numba


@per_type
def test_label_overlaps_are_the_reference(dtype, generator):
    for moving, fixed, batch, _ in WARPS:
        maps = [label_map(generator, batch, fixed), label_map(generator, batch, moving)]
        for displacement in displacements(generator, batch, fixed, dtype):
            assert_kernel_is_reference(overlaps, [*maps, displacement])


@per_shape
def test_the_sizes_of_the_fixed_labels_are_counted_alike(shape, generator):
    fixed, moving = (label_map(generator, 2, shape) // 2 for _ in range(2))  # indices, not codes: 0 ... 3
    displacement = normal(generator, 2, len(shape), *shape)
    with Entered() as entered:
        _, _, sizes = label_dice.overlaps(fixed, moving, displacement, 4)
    assert entered.names
    assert sizes.tolist() == [[(one == label).sum().item() for label in range(4)] for one in fixed]


@per_context
def test_the_memory_of_soft_dice_does_not_grow_with_the_number_of_labels(context, generator):
    """With one-hot images of 60 labels the largest tensor would be 60 images."""
    shape = (12, 11, 10)
    maps = [torch.from_numpy(generator.integers(0, 60, (1, 1, *shape))) for _ in range(2)]
    displacement = normal(generator, 1, 3, *shape).requires_grad_()
    largest, kept = [], []
    for count in (2, 60):
        with context(), Entered() as entered:
            soft_dice(*maps, displacement, range(count)).backward()
            kept.append(sum(x.numel() for x in saved_by(soft_dice, *maps, displacement, range(count))))
        largest.append(entered.largest)
    assert largest[0] == largest[1] <= displacement.numel()
    assert kept[1] - kept[0] < 60 * 50  # a few numbers for each label
