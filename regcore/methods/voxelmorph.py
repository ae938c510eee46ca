"""VoxelMorph (Balakrishnan et al., TMI 2019), and its diffeomorphic variant (Dalca et al., MedIA 2019).

A U-Net predicts a flow from the pair: the displacement itself (the paper), or a stationary velocity, which
is integrated by scaling and squaring (the authors' current code).  The loss is Eq. 4 of the paper,
similarity plus λ times the diffusion of the flow at the resolution at which it is used, and with
segmentations Eq. 10, which adds γ times the overlap of warped labels.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from regcore.errors import InputError
from regcore.losses import diffusion, soft_dice
from regcore.methods.base import TRAINING
from regcore.methods.constants import LABELS_ALONE
from regcore.methods.flow import FLOW, FlowMethod
from regcore.methods.objective import similarity, similarity_settings
from regcore.spatial import warp
from regcore.synthesis import augmentation
from regcore.synthesis.noise import random_generator

#: λ of the paper for mean squares (Section V-G) and of its repository for local correlation.
PUBLISHED_LAMBDA = {"mse": 0.02, "lncc": 1.0}


class VoxelMorph(FlowMethod):
    """VoxelMorph, unsupervised or with auxiliary segmentations; displacement or velocity."""

    properties: ClassVar[dict] = {
        "preset": {
            "description": "where the defaults come from: paper (displacement at full resolution, lncc), code (the "
            "authors' current repository: max pooling, velocity at half resolution, mse) or null, regcore's own",
            "enum": ["paper", "code", None],
            "default": None,
        },
        **FLOW,
        **similarity_settings("mse", window=9),
        "weighting": {
            "description": "how terms are weighed: sum (Eq. 4 and 10: similarity + λ smoothness + γ overlap), or "
            "convex (Eq. 3 of HyperMorph: (1 - λ) ((1 - γ) similarity + γ overlap) + λ smoothness)",
            "enum": ["sum", "convex"],
            "default": "sum",
        },
        "image_sigma": {
            "description": "standard deviation of the images' noise that mse is measured in: it is divided by the "
            "square; 1 leaves it as it is",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 1,
        },
        "smoothness": {
            "description": "what the smoothness term is multiplied by, λ aside; 2 in the authors' code of HyperMorph",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 1,
        },
        "lambda": {
            "description": "weight of the smoothness term, λ of Eq. 4; null: the published one, 0.02 for mse and 1 for "
            "lncc",
            "type": ["number", "null"],
            "minimum": 0,
            "default": None,
        },
        "bidirectional": {
            "description": "also compare the fixed image, warped by the inverse, with the moving one; needs a velocity",
            "type": "boolean",
            "default": False,
        },
        "gamma": {
            "description": "weight of the overlap of labels in training, γ of Eq. 10; infinity: labels alone",
            "anyOf": [{"type": "number", "minimum": 0}, {"const": LABELS_ALONE}],
            "default": 0,
        },
        "observed": {
            "description": "labels that training with γ sees: all, half or one of the structures, groups (labels "
            "merged into the study's groups), or a list of numbers and ranges",
            "anyOf": [{"enum": ["all", "half", "one", "groups"]}, {"type": "array", "minItems": 1}],
            "default": "all",
        },
        "observed_draw": {
            "description": "which draw of half the structures, or of one",
            "type": "integer",
            "minimum": 1,
            "default": 1,
        },
        "flips": {
            "description": "flip the axes of training pairs at random",
            "type": "boolean",
            "default": False,
        },
        "augmentation": {
            "description": "what else is done to training pairs: deformations (random ones of every image), or "
            "contrasts (the network sees images through random lookup tables, the loss does not); null: nothing",
            "enum": ["deformations", "contrasts", None],
            "default": None,
        },
        **TRAINING,
    }
    presets: ClassVar[dict[str, dict]] = {
        "paper": {"flow": "displacement", "flow_resolution": 1, "similarity": "lncc"},
        # λ is 0.01 there, times the factor 2 that goes with half resolution (loss_mult).
        "code": {"architecture": "code", "similarity": "mse", "lambda": 0.02},
    }

    def __init__(self, settings: Mapping, where: str = "method"):
        super().__init__(settings, where)
        chosen = self.settings
        self._settle_weights(settings, where)
        if chosen["bidirectional"] and chosen["flow"] == "displacement":
            raise InputError(f"{where}: 'bidirectional' needs the inverse, which 'flow: displacement' does not have")
        self._unlikeness = self._similarity()

    def _settle_weights(self, given: Mapping, where: str) -> None:
        """Check the weights of the terms, and fill in λ where none is ``given``."""
        chosen = self.settings
        if chosen["lambda"] is None:
            if chosen["weighting"] == "convex" or chosen["similarity"] not in PUBLISHED_LAMBDA:
                raise InputError(f"{where}: no λ is published for {chosen['similarity']} so weighed; set 'lambda'")
            chosen["lambda"] = PUBLISHED_LAMBDA[chosen["similarity"]]
        if chosen["weighting"] == "convex":
            for name in ("lambda", "gamma"):
                if not 0 <= float(chosen[name]) <= 1:
                    raise InputError(f"{where}: '{name}: {chosen[name]}' must lie in [0, 1] with 'weighting: convex'")

    @property
    def observed(self) -> Any:
        return self.settings["observed"] if self.settings["gamma"] != 0 else None

    @property
    def recordable(self) -> bool:
        chosen = self.settings
        drawn = chosen["augmentation"] is not None or chosen["flips"] or chosen["passes"] > 1
        return not drawn and not chosen.get("checkpointing", False)

    @property
    def compares_images(self) -> bool:
        return self.settings["gamma"] != LABELS_ALONE

    def training_step(self, module: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses of the network's prediction for a batch, augmented from torch's global random state."""
        batch, seen = self._augmented(batch)
        return self.losses(self.predict_in_training(module, seen["fixed"], seen["moving"]), batch)

    def _augmented(self, batch: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What the losses see, and what the network does."""
        kind = self.settings["augmentation"]
        if kind is None and not self.settings["flips"]:
            return batch, batch
        draws = random_generator(batch["fixed"].device)
        if self.settings["flips"]:
            batch = augmentation.flipped(batch, draws)
        if kind == "deformations":
            batch = augmentation.deformed(batch, draws)
        if kind == "contrasts":
            return batch, {side: augmentation.recoloured(batch[side], draws) for side in augmentation.SIDES}
        return batch, batch

    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self._losses(flow, batch, self._deformed(flow, batch))

    def _deformed(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the losses compare: the displacement, the warped moving image, and the fixed one warped back."""
        fixed, moving = batch["fixed"], batch["moving"]
        found = {"displacement": self.displacement(flow, fixed)}
        if self.settings["gamma"] != LABELS_ALONE:
            found["warped"] = warp(moving, found["displacement"])
            if self.settings["bidirectional"]:
                found["warped_back"] = warp(fixed, self.displacement(-flow, fixed))
        return found

    def _losses(self, flow: Tensor, batch: Mapping[str, Any], deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        if "warped" in deformed:
            unlikeness = self._unlikeness(batch["fixed"], deformed["warped"])
            if "warped_back" in deformed:
                unlikeness = 0.5 * (unlikeness + self._unlikeness(batch["moving"], deformed["warped_back"]))
            found |= {self.settings["similarity"]: unlikeness, **self._terms(flow, deformed)}
        if "codes" in batch:
            labels = batch["fixed_labels"], batch["moving_labels"]
            found["label_dice"] = soft_dice(*labels, deformed["displacement"], batch["codes"])
        return {"total": self._total(found), **found}

    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What holds the field smooth: of the flow, at the resolution at which it is used."""
        return {"diffusion": diffusion(flow)}

    def _total(self, found: Mapping[str, Tensor]) -> Tensor:
        weights = self._weights("label_dice" in found)
        return sum(weights[name] * value for name, value in found.items())

    def _weights(self, with_labels: bool) -> dict[str, float]:
        """Weight of each term."""
        amount, gamma = self.settings["lambda"], self.settings["gamma"]
        if self.settings["weighting"] == "convex":
            gamma = gamma if with_labels else 0
            image, smoothness, overlap = (1 - amount) * (1 - gamma), amount, (1 - amount) * gamma
        else:
            image, smoothness, overlap = 1, amount, 1 if gamma == LABELS_ALONE else gamma
        smoothness *= self.settings["smoothness"]
        return {self.settings["similarity"]: image, "diffusion": smoothness, "label_dice": overlap}

    def _similarity(self) -> Callable[[Tensor, Tensor], Tensor]:
        return similarity(self.settings, lncc_variant="voxelmorph")
