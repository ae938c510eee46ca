"""Hyper-TransMorph and Hyper-TM-SPR (Chen et al., 2024, Section 6.2): one TransMorph for all strengths of smoothness.

The hypernetwork of HyperMorph around TransMorph, over λ, or around TM-SPR, over the hyperparameters of its prior.  To
write all of TransMorph's weights a hypernetwork needs a hundred times as many of its own (over 70 GB in the paper).  So
only the layers that make the field and the weight volume of the encoder's features are written; all of them are with
``generated`` naming every part, where a short last layer (``hidden``) bounds the memory, because the matrix that writes
them has its rank.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

from regcore.errors import InputError
from regcore.methods.constants import PRIORS
from regcore.methods.hypernetworked import HYPERNETWORK, RANGES, Hypernetworked
from regcore.methods.spr import SPR, UNET
from regcore.methods.transmorph import TransMorph

#: The parts of the network that are generated where a study says nothing: those after the encoder.
AFTER_ENCODER = ["looks", "decoders", "heads"]
#: The ranges of brain MRI in Table 1, from 0 on as in Section 6.2.1.
TABLE_1 = {"lambda_max": [0, 5], "alpha": [0, 0.2], "lambda_mean": [0, 5], "sigma": [0, 4]}
SETTINGS = {
    **HYPERNETWORK,
    "hidden": HYPERNETWORK["hidden"] | {"default": [32, 64, 64, 128, 128]},
    "final": HYPERNETWORK["final"] | {"default": "relu"},
    "generated": HYPERNETWORK["generated"]
    | {"description": "parts of the network whose weights are generated; null: those after the encoder"},
}


class HyperTransMorph(Hypernetworked, TransMorph):
    """TransMorph with a hypernetwork over λ: (1 - λ) similarity + λ smoothness."""

    limits: ClassVar = {"lambda": (0, 1)}
    ranges_key: ClassVar = "prior"
    properties: ClassVar[dict] = {
        **TransMorph.properties,
        "passes": TransMorph.properties["passes"] | {"enum": [1]},
        "weighting": TransMorph.properties["weighting"] | {"enum": ["convex"], "default": "convex"},
        "lambda": {
            "description": "λ to register with; null: the one that is best on the validation pairs",
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "default": None,
        },
        "prior": RANGES | {"default": {"lambda": [0, 1]}},
        **SETTINGS,
    }

    def _settle_weights(self, given: Mapping, where: str) -> None:
        self.settings["generated"] = self.settings["generated"] or AFTER_ENCODER
        super()._settle_weights(given, where)


class HyperSPR(Hypernetworked, SPR):
    """TM-SPR with a hypernetwork over the hyperparameters of its prior."""

    ranges_key: ClassVar = "ranges"
    properties: ClassVar[dict] = {
        **SPR.properties,
        **{
            name: {
                "description": f"{SPR.properties[name]['description'].partition(':')[0]}: the value to register with; "
                "null: the one that is best on the validation pairs; a constant where 'ranges' does not name it",
                "type": ["number", "null"],
                "minimum": 0,
                "default": None,
            }
            for name in TABLE_1
        },
        "ranges": RANGES
        | {
            "description": f"{RANGES['description']}; null: of those without a value λ up to 5, α′ up to 0.2 (Beta), "
            "σ′ up to 4 (Gaussian), as for brain MRI in Table 1",
            "type": ["object", "null"],
            "default": None,
        },
        **SETTINGS,
    }

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        return dict.fromkeys(PRIORS[self.settings["prior"]], (0, math.inf))

    def _settle_weights(self, given: Mapping, where: str) -> None:
        chosen = self.settings
        if chosen["ranges"] is None:
            chosen["ranges"] = {name: TABLE_1[name] for name in PRIORS[chosen["prior"]] if given.get(name) is None}
            if not chosen["ranges"]:
                raise InputError(
                    f"{where}: both hyperparameters are set; give 'ranges' of those that the network is told"
                )
        if chosen["generated"] is None and chosen["network"] != UNET:
            chosen["generated"] = [*(f"network.{part}" for part in AFTER_ENCODER), "head"]
        super()._settle_weights(given, where)
