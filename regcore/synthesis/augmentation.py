"""Augmentation of real images: the augmented baselines of SynthMorph (Hoffmann et al., TMI 2022), Section III-B."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from regcore.spatial import integrate, resample_displacement, smooth, warp
from regcore.synthesis.noise import Draws, number, random_velocity, uniform

#: r_v, b_v and the squarings of the deformations, those of sm-brains (Section III-G).
RESOLUTIONS, LARGEST_SD, STEPS = (16,), 0.5, 5
#: Entries of a lookup table, and the standard deviation of the Gaussian that smooths it, σ_L.
ENTRIES, LOOKUP_SIGMA = 256, 64
SIDES = ("fixed", "moving")


def flipped(batch: Mapping[str, Any], draws: Draws) -> dict[str, Any]:
    """The batch with axes flipped at random [1]_, the same for all its images and label maps.

    Parameters
    ----------
    batch : mapping of str
        ``fixed``, ``moving`` and what belongs to them, (B, C, *space).
    draws : Draws
        Each axis is flipped with a probability of one half.

    Returns
    -------
    dict

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Section III-B.

    Examples
    --------
    >>> import torch
    >>> from regcore.synthesis.augmentation import flipped
    >>> from regcore.synthesis.noise import Draws
    >>> ramp = torch.arange(4.0).view(1, 1, 2, 2)
    >>> found = flipped({"fixed": ramp, "moving": 2 * ramp}, Draws(seed=3))
    >>> torch.equal(found["moving"], 2 * found["fixed"])
    True
    """
    axes = [axis for axis in range(2, batch["fixed"].ndim) if number(0, 1, draws) < 0.5]
    return {name: x.flip(axes) if isinstance(x, Tensor) and axes else x for name, x in batch.items()}


def deformed(batch: Mapping[str, Any], draws: Draws) -> dict[str, Any]:
    """The batch with every image, and its labels, deformed at random: vm-ncc-aug [1]_.

    Parameters
    ----------
    batch : mapping of str
        ``fixed`` and ``moving``, (B, C, *space), and optionally ``fixed_labels`` and ``moving_labels``.
    draws : Draws
        Every sample of the batch has its own deformation.

    Returns
    -------
    dict

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Sections III-B and III-G.

    Examples
    --------
    >>> import torch
    >>> from regcore.synthesis.augmentation import deformed
    >>> from regcore.synthesis.noise import Draws
    >>> images = torch.rand(2, 1, 16, 16)
    >>> found = deformed({"fixed": images, "moving": images}, Draws(seed=3))
    >>> tuple(found["fixed"].shape), torch.equal(found["fixed"], found["moving"])
    ((2, 1, 16, 16), False)
    """
    found = dict(batch)
    for side in SIDES:
        space = batch[side].shape[2:]
        velocity = torch.cat([random_velocity(space, RESOLUTIONS, LARGEST_SD, draws) for _ in range(len(batch[side]))])
        displacement = resample_displacement(integrate(velocity, STEPS), space)
        found[side] = warp(batch[side], displacement)
        if f"{side}_labels" in batch:
            found[f"{side}_labels"] = warp(batch[f"{side}_labels"], displacement, mode="nearest")
    return found


def recoloured(images: Tensor, draws: Draws) -> Tensor:
    """Images, each mapped by its own smooth random lookup table: hybrid [1]_.

    Tables are uniform noise, smoothed with a Gaussian of σ_L = 64 entries and stretched to 0 ... 1 again, because
    the wide Gaussian leaves hardly any contrast.  Values between entries are interpolated linearly.

    Parameters
    ----------
    images : Tensor, shape (B, 1, *space)
        Intensities 0 to 1.
    draws : Draws
        Where the tables come from.

    Returns
    -------
    Tensor, shape (B, 1, *space)
        Intensities 0 to 1.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Section III-B.

    Examples
    --------
    >>> import torch
    >>> from regcore.synthesis.augmentation import recoloured
    >>> from regcore.synthesis.noise import Draws
    >>> images = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    >>> found = recoloured(images, Draws(seed=3))
    >>> round(found.min().item(), 3), round(found.max().item(), 3)
    (0.0, 1.0)
    """
    found = []
    for image in images:
        table = smooth(uniform(0, 1, draws, (1, 1, ENTRIES, 1)), (LOOKUP_SIGMA, 0)).flatten()
        low, high = table.aminmax()
        table = (table - low) / (high - low)
        place = image.clamp(0, 1) * (ENTRIES - 1)
        below = place.floor().clamp(max=ENTRIES - 2)
        index = below.long()
        found.append(torch.lerp(table[index], table[index + 1], place - below))
    return torch.stack(found)
