"""Registration of any pair: the optimiser :mod:`regcore.methods.instance`, set for the pair by looking at it.

1. Contrasts: if both images brighten and darken together (:func:`regcore.methods.contrast.agreement`), they are
   compared by local correlation at once.  Else a coarse and smooth field is found by mutual information, the moving
   image gets the intensities that the fixed one has there, and the local correlation of the fixed image and that one
   decides, with more smoothing: the two are not quite alike.
2. Content: where an image shows much that the other does not, such as a head and an extracted brain, that is ignored.
3. Reliability: the coarse fields of two contrasts in both directions must be about inverse to each other.  If they are
   not, nothing relates the images that a deformation could rely on, and they stay where the affine alignment put them.
4. Smoothness: the result must not be less alike than the images were before, by the contrast-free likeness of the
   verdict (:mod:`regcore.evaluation.likeness`).  If it is, the pair is registered again with more smoothing, and
   at last left as the affine alignment put it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor

from regcore.evaluation.likeness import Likeness, content, view
from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.methods.base import Channel, GuidingLabels, Method, Registration, as_tensor
from regcore.methods.classical.external import joined_mask
from regcore.methods.constants import LABEL_WEIGHTS
from regcore.methods.contrast import agreement, in_contrast_of
from regcore.methods.instance import Instance
from regcore.methods.settings.auto import SMOOTH_DIFFERENT, SMOOTH_SAME, AutoSettings
from regcore.methods.settings.base import MethodSettings
from regcore.process.devices import default_device
from regcore.spatial import compose, warp

#: Images that agree this much have one contrast: 0.9 and more within, 0.6 and less across contrasts of training pairs.
SAME = 0.8
#: Images that are less alike than this, where both have content, tell little: ultrasound and MR.
HARDLY_ALIKE = 0.15
#: The most that the coarse fields of two contrasts in both directions may disagree, relative to the images' length:
#: 0.004 to 0.017 for brains in T1, T2 and PD, whole heads too; 0.05 and more for MR and ultrasound of a prostate.
UNRELIABLE = 0.03
#: How smoothing grows if a result is not accepted, and up to what.
GROWTH, MOST = 1.5, 4.0
#: The finest level at which two contrasts are compared.
FINEST = 2
#: The part of an image's length within which the content of both is taken to be the same.
MARGIN = 0.02
#: The share of one's content beyond the other's from which on this is ignored.
BEYOND = 0.2
#: Likeness may fall by this share: it is measured coarsely.
TOLERATED = 0.02


class Auto(Method):
    """Optimise the field of one pair with settings chosen for it, without training.

    Parameters
    ----------
    settings : mapping or MethodSettings
        As for :class:`regcore.methods.base.Method`.
    where : str
        Name of the settings in messages.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> grid = Grid.centred((48, 48), spacing=(1, 1), centre=(0, 0))
    >>> rings = [np.cos(np.linalg.norm(np.indices((48, 48)) - middle, axis=0) / 3) for middle in (23, 25)]
    >>> found = make_method("auto").register(*(Volume(image.astype(np.float32) / 2 + 0.5, grid) for image in rings))
    >>> found.choices["contrasts"], found.choices["smooth_field"]
    ('same', 0.7)
    """

    uses_masks: ClassVar[bool] = True
    uses_channels: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True
    gpu: ClassVar = True
    settings_type: ClassVar = AutoSettings
    settings: AutoSettings

    def __init__(self, settings: Mapping[str, Any] | MethodSettings, where: str = "method"):
        super().__init__(settings, where)
        # Kept, as they keep what a GPU has recorded of them.
        self._optimisers: dict[float | None, Instance] = {}

    @property
    def device(self) -> torch.device:
        return default_device()

    @property
    def label_weight(self) -> float:
        """Weight of the overlap of guiding labels, besides a similarity of weight 1."""
        return LABEL_WEIGHTS["lncc"]

    def register(
        self,
        fixed: Volume,
        moving: Volume,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
        channels: Sequence[Channel] = (),
        labels: GuidingLabels | None = None,
    ) -> Registration:
        shown = _Shown(fixed, moving)
        same, smoothing, choices = self._chosen(shown)
        pairs = [Channel(fixed, moving, 1, fixed_mask, moving_mask), *channels]
        pairs = [shown.masked(pair) for pair in pairs]
        if not same:
            field, choices["disagreement"] = self._coarse_field(pairs, labels, shown.near)
            if choices["disagreement"] > UNRELIABLE:
                kept = "the alignment: the coarse deformations in both directions disagree"
                return _undeformed(pairs[0], choices | {"smooth_field": None, "kept": kept})
            pairs = [replace(pair, moving=_recoloured(pair, field, shown.near, self.device)) for pair in pairs]
        found = self._accepted(pairs, labels, smoothing, shown)
        if found is None:
            kept = "the alignment: after every deformation the images were less alike"
            return _undeformed(pairs[0], choices | {"smooth_field": None, "kept": kept})
        return replace(found, choices=choices | found.choices)

    def _chosen(self, shown: "_Shown") -> tuple[bool, float, dict[str, Any]]:
        """Whether the contrasts are the same, the least smoothing, and the record of both."""
        agree, hardly = shown.agreement(self.device), shown.strength < HARDLY_ALIKE
        given = self.settings.contrasts
        same = (agree >= SAME and not hardly) if given is None else given == "same"
        default = SMOOTH_SAME if same else SMOOTH_DIFFERENT
        choices = {
            "contrasts": "same" if same else "different",
            "agreement": round(agree, 3),
            "ignored_beyond_the_other": shown.ignored,
            "likeness_before": round(shown.before, 4),
        }
        return same, self.settings.smooth_field or default, choices

    def _coarse_field(
        self, pairs: Sequence[Channel], labels: GuidingLabels | None, where: np.ndarray
    ) -> tuple[Tensor, float]:
        """The coarse displacement of two contrasts, and how much it and its counterpart disagree in ``where``."""
        turned = [Channel(p.moving, p.fixed, p.weight, p.moving_mask, p.fixed_mask) for p in pairs]
        other = None if labels is None else replace(labels, fixed=labels.moving, moving=labels.fixed)
        there = _register(self._optimiser(None), pairs, labels).field.displacement
        back = _register(self._optimiser(None), turned, other).field.displacement
        if not where.any():
            return there, 0.0
        apart = compose(there, back).norm(dim=1)[0][torch.from_numpy(where)].mean()
        return there, round(float(apart) / max(where.shape), 4)

    def _accepted(
        self, pairs: Sequence[Channel], labels: GuidingLabels | None, smoothing: float, shown: "_Shown"
    ) -> Registration | None:
        """The first field after which the images are not less alike, with its smoothing; None if there is none."""
        while True:
            found = _register(self._optimiser(smoothing), pairs, labels)
            after = shown.likeness(found.field)
            if after >= (1 - TOLERATED) * shown.before:
                return replace(found, choices={"smooth_field": smoothing, "likeness_after": round(after, 4)})
            smoothing = round(GROWTH * smoothing, 2)
            if smoothing > MOST:
                return None

    def _optimiser(self, smoothing: float | None) -> Instance:
        """What finds the result with this smoothing; None: what finds a first field between two contrasts."""
        if smoothing not in self._optimisers:
            levels = list(zip(self.settings.shrink, self.settings.iterations, strict=True))
            chosen: dict[str, Any] = {"similarity": "lncc", "smooth_field": smoothing}
            if smoothing is None:
                levels = [level for level in levels if level[0] >= FINEST] or levels[:1]
                chosen = {"similarity": "nmi"}
            shrink, iterations = (list(part) for part in zip(*levels, strict=True))
            self._optimisers[smoothing] = Instance({**chosen, "shrink": shrink, "iterations": iterations}, "auto")
        return self._optimisers[smoothing]


class _Shown:
    """What two aligned images on one grid show, what of it only one of them does, and how alike they are."""

    def __init__(self, fixed: Volume, moving: Volume):
        self._pair = fixed, moving
        self._likeness = Likeness(view(fixed), view(moving))
        shown = [content(image.data) for image in self._pair]
        margin = max(round(MARGIN * max(fixed.grid.shape)), 1)
        wide = [binary_dilation(part, iterations=margin) for part in shown]
        #: Where both show anatomy, and the same with a margin, bool, (*space,).
        self.shared, self.near = (np.logical_and(*parts) for parts in (shown, wide))
        self._counting = [
            image.with_data(other.astype(np.uint8)) if (part & ~other).sum() > BEYOND * part.sum() else None
            for image, part, other in zip(self._pair, shown, wide[::-1], strict=True)
        ]
        identity = DisplacementField.identity(fixed.grid)
        self.before = self.likeness(identity)
        #: Likeness of what both fields of view cover.
        self.strength = self.before / max(self._likeness.coverage(self._likeness.targets_of(identity)), 0.05)

    def likeness(self, field: DisplacementField) -> float:
        """Contrast-free likeness under a field."""
        return float(self._likeness.of(self._likeness.targets_of(field)[None])[0])

    def agreement(self, device: torch.device) -> float:
        """As for :func:`regcore.methods.contrast.agreement`."""
        fixed, moving = (as_tensor(image).to(device) for image in self._pair)
        return agreement(fixed, moving, _mask_tensor(self.shared, device))

    def masked(self, pair: Channel) -> Channel:
        """A pair whose masks leave out what one image shows and the other does not, if that is much."""
        fixed_mask = joined_mask(pair.fixed_mask, self._counting[0])
        return replace(pair, fixed_mask=fixed_mask, moving_mask=joined_mask(pair.moving_mask, self._counting[1]))

    @property
    def ignored(self) -> str | None:
        """Whose content is ignored where the other image has none."""
        names = [name for name, mask in zip(("fixed", "moving"), self._counting, strict=True) if mask is not None]
        return " and ".join(names) or None


def _register(optimiser: Instance, pairs: Sequence[Channel], labels: GuidingLabels | None) -> Registration:
    first, *others = pairs
    masks = first.fixed_mask, first.moving_mask
    return optimiser.register(first.fixed, first.moving, *masks, channels=others, labels=labels)


def _undeformed(pair: Channel, choices: dict[str, Any]) -> Registration:
    fixed, moving = (DisplacementField.identity(image.grid) for image in (pair.fixed, pair.moving))
    return Registration(fixed, moving, choices=choices)


def _recoloured(pair: Channel, displacement: Tensor, where: np.ndarray, device: torch.device) -> Volume:
    """The moving image in the contrast of the fixed one."""
    fixed, moving = (as_tensor(image).to(device) for image in (pair.fixed, pair.moving))
    warped = warp(moving, displacement.to(moving), border="edge")
    return pair.moving.with_data(in_contrast_of(fixed, moving, warped, _mask_tensor(where, device))[0, 0].cpu().numpy())


def _mask_tensor(where: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(where)[None, None].to(device)
