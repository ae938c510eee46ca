"""HyperMorph (Hoopes et al., IPMI 2021): one network for all values of the loss's hyperparameters.

A hypernetwork writes the weights of VoxelMorph's network from the hyperparameters Λ, and at every training step
each pair meets its own Λ, in the network and in the loss (Eq. 1 to 3).  Afterwards a value is chosen without
training anything: :mod:`regcore.tuning.amortised`.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from regcore.errors import InputError, did_you_mean
from regcore.losses import lncc
from regcore.methods.voxelmorph import VoxelMorph
from regcore.networks.hypernetwork import ACTIVATIONS, Hypernetwork, weights_of

#: What a hypernetwork may be told, and between which values that may lie.
LIMITS = {"lambda": (0, 1), "gamma": (0, 1), "window": (3, 99)}
#: Decimals of a value: inputs are in single precision.
DIGITS = 6


class HyperMorph(VoxelMorph):
    """VoxelMorph with a hypernetwork over λ, and over the window of lncc or γ.

    The settings of these names hold the value to register with; null where none is chosen yet.
    """

    properties: ClassVar[dict] = {
        **VoxelMorph.properties,
        "preset": {
            "description": "where the hypernetwork's defaults come from: paper (4 layers of 64 units, tanh; all "
            "weights are generated), code (6 of 128, the flow's convolution is trained as usual, end points drawn more "
            "often) or null, regcore's own",
            "enum": ["paper", "code", None],
            "default": None,
        },
        "architecture": VoxelMorph.properties["architecture"] | {"default": "half"},
        "passes": VoxelMorph.properties["passes"] | {"enum": [1]},
        "weighting": VoxelMorph.properties["weighting"] | {"enum": ["convex"], "default": "convex"},
        "image_sigma": VoxelMorph.properties["image_sigma"] | {"default": 0.05},
        "lambda": {
            "description": "λ of Eq. 2 to register with; null: the one that is best on the validation pairs",
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "default": None,
        },
        "window": VoxelMorph.properties["window"]
        | {
            "description": "side of the windows of lncc in voxels; as a hyperparameter any number, which stands for "
            "the losses of the odd sizes around it, interpolated linearly; null: the best one on the validation pairs",
            "type": ["number", "null"],
        },
        "gamma": {
            "description": "γ of Eq. 3, the share of the overlap of labels; as a hyperparameter the value to register "
            "with, null: the best one on the validation pairs",
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "default": 0,
        },
        "prior": {
            "description": "the hyperparameters of the hypernetwork (lambda, window, gamma), each with the range over "
            "which training draws it uniformly",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
            "default": {"lambda": [0, 1]},
        },
        "end_points": {
            "description": "how often training draws one of the two ends of the range instead, for each hyperparameter",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.1,
        },
        "hidden": {
            "description": "units of the layers of the hypernetwork",
            "type": "array",
            "minItems": 1,
            "items": {"type": "integer", "minimum": 1},
            "default": [64, 64, 64, 64],
        },
        "final": {
            "description": "activation of the last of these layers; ReLU after the others",
            "enum": list(ACTIVATIONS),
            "default": "tanh",
        },
        "generated": {
            "description": "parts of the network whose weights are generated (unet, head); null: all",
            "type": ["array", "null"],
            "minItems": 1,
            "items": {"type": "string"},
            "default": None,
        },
    }
    presets: ClassVar[dict[str, dict]] = {
        "paper": {"end_points": 0},
        "code": {"hidden": [128] * 6, "final": "relu", "generated": ["unet"], "end_points": 0.2, "smoothness": 2},
    }

    def _settle_weights(self, given: Mapping, where: str) -> None:
        """Check the ranges, and the values that are given; hyperparameters without one wait for their tuning."""
        chosen = self.settings
        for name, (low, high) in chosen["prior"].items():
            if name not in LIMITS:
                raise InputError(f"{where}.prior: no hyperparameter '{name}'{did_you_mean(name, LIMITS)}")
            least, most = LIMITS[name]
            if not least <= low < high <= most:
                raise InputError(f"{where}.prior: {name}: [{low}, {high}] must ascend within [{least}, {most}]")
        if "window" in chosen["prior"] and chosen["similarity"] != "lncc":
            raise InputError(f"{where}.prior: '{chosen['similarity']}' has no window; set 'similarity: lncc'")
        for name in LIMITS:
            if name in self.hyperparameters:
                if given.get(name) is None:
                    chosen[name] = None
                else:
                    self._check(name, chosen[name], where)
            elif chosen[name] is None:
                raise InputError(f"{where}: set '{name}', or a range of it in 'prior'")
        if "window" not in self.hyperparameters and chosen["window"] % 1:
            raise InputError(f"{where}: 'window: {chosen['window']}' must be whole, or have a range in 'prior'")
        self._check_parts(where)

    def _check_parts(self, where: str) -> None:
        """Look whether the network has the parts that are to be generated, without making its weights."""
        with torch.device("meta"):
            network = super().build(2)
        try:
            weights_of(network, self.settings["generated"])
        except ValueError as error:
            raise InputError(f"{where}: 'generated': {error}") from error

    @property
    def hyperparameters(self) -> list[str]:
        """What the hypernetwork is told, in the order of its inputs."""
        return list(self.settings["prior"])

    @property
    def observed(self) -> Any:
        return self.settings["observed"] if "gamma" in self.hyperparameters else super().observed

    def at(self, values: Mapping[str, float]) -> "HyperMorph":
        """The same method and network at other hyperparameters.

        Raises
        ------
        InputError
            The hypernetwork is not told such a hyperparameter, or the value lies outside of what it has met.
        """
        for name, value in values.items():
            if name not in self.hyperparameters:
                raise InputError(f"the model has no hyperparameter '{name}'{did_you_mean(name, self.hyperparameters)}")
            self._check(name, value, "")
        return self._at(values)

    def _at(self, values: Mapping[str, float]) -> "HyperMorph":
        """:meth:`at` without looking."""
        other = copy.copy(self)
        other.settings = {**self.settings, **values}
        other._unlikeness = other._similarity()
        return other

    def _check(self, name: str, value: float, where: str) -> None:
        low, high = self.settings["prior"][name]
        if not low <= value <= high:
            place = f"{where}: " if where else ""
            raise InputError(f"{place}{name} = {value:g} lies outside [{low:g}, {high:g}], where the model is trained")

    def _similarity(self) -> Callable[[Tensor, Tensor], Tensor]:
        if "window" not in self.hyperparameters:
            return super()._similarity()
        return lambda fixed, warped: interpolated_lncc(fixed, warped, self.settings["window"])

    def build(self, ndim: int) -> nn.Module:
        chosen = self.settings
        return Hypernetwork(
            super().build(ndim), len(self.hyperparameters), chosen["hidden"], chosen["final"], chosen["generated"]
        )

    def inputs(self, values: Mapping[str, float]) -> Tensor:
        """A row (1, n) of the hypernetwork's inputs: each hyperparameter's place in its range, 0 to 1."""
        prior = self.settings["prior"]
        return torch.tensor([[(values[name] - low) / (high - low) for name, (low, high) in prior.items()]])

    def values_of(self, row: Tensor) -> dict[str, float]:
        """The inverse of :meth:`inputs`, for a row (n,)."""
        ranges = zip(self.settings["prior"].items(), row.tolist(), strict=True)
        return {
            name: min(max(round(low + (high - low) * place, DIGITS), low), high)
            for (name, (low, high)), place in ranges
        }

    def predict(self, module: Callable[..., Tensor], fixed: Tensor, moving: Tensor) -> Tensor:
        missing = [name for name, value in self.values.items() if value is None]
        if missing:
            raise InputError(f"no value of {', '.join(missing)} is chosen: tune the model, or give one")
        return self.predict_at(module, fixed, moving, self.inputs(self.values))

    def predict_at(self, module: Callable[..., Tensor], fixed: Tensor, moving: Tensor, inputs: Tensor) -> Tensor:
        """Flow of image pairs as for :meth:`predict`, with ``inputs`` (1, n), or (B, n) for a row to each pair."""
        inputs = inputs.to(fixed.device)
        return super().predict(lambda pair: module(pair, inputs), fixed, moving)

    def training_step(self, module: Callable[..., Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Losses, averaged over pairs of which each has drawn its own hyperparameters."""
        drawn = self.draw(len(batch["fixed"]))
        batch, seen = self._augmented(batch)
        flow = self.predict_at(module, seen["fixed"], seen["moving"], drawn)
        deformed = self._deformed(flow, batch)
        found = [
            self._at(self.values_of(row))._losses(flow[n : n + 1], _sample(batch, n), _sample(deformed, n))
            for n, row in enumerate(drawn)
        ]
        return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}

    def draw(self, rows: int) -> Tensor:
        """Rows (rows, n) of inputs: uniform, some at an end; they follow torch's seed."""
        places = torch.rand(rows, len(self.hyperparameters))
        at_end = torch.rand_like(places) < self.settings["end_points"]
        return torch.where(at_end, places.round(), places)

    def looks(self) -> Sequence["HyperMorph"]:
        """The method at values that cover the ranges evenly, where none is chosen: five, or three for each of two."""
        if None not in self.values.values():
            return [self]
        count = 5 if len(self.hyperparameters) == 1 else 3
        places = torch.cartesian_prod(*[(torch.arange(count) + 0.5) / count] * len(self.hyperparameters))
        return [self._at(self.values_of(row)) for row in places.reshape(-1, len(self.hyperparameters))]


def interpolated_lncc(fixed: Tensor, warped: Tensor, window: float) -> Tensor:
    """LNCC for any size of the window from 3 on: of the odd sizes around it, interpolated linearly."""
    below = 2 * int((window - 1) // 2) + 1
    share = (window - below) / 2
    loss = lncc(fixed, warped, below, "voxelmorph")
    return loss if share == 0 else (1 - share) * loss + share * lncc(fixed, warped, below + 2, "voxelmorph")


def _sample(batch: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One pair of a batch."""
    return {name: x[number : number + 1] if isinstance(x, Tensor) else x for name, x in batch.items()}
