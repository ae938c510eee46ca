"""MR signal equations: what a tissue looks like under a pulse sequence.

Tissue parameters are the 1.5 T values of the BrainWeb simulator (Kwan, Evans and Pike, IEEE TMI 18:1085,
1999) for white matter, grey matter and CSF; deep grey matter lies between grey and white (Rooney et al.,
Magn. Reson. Med. 57:308, 2007, give the order thalamus and putamen between cortex and white matter).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tissue:
    """T1 and T2 in ms, and proton density relative to water."""

    t1: float
    t2: float
    pd: float


TISSUES = {
    "white": Tissue(t1=500, t2=70, pd=0.77),
    "grey": Tissue(t1=833, t2=83, pd=0.86),
    "deep": Tissue(t1=680, t2=76, pd=0.82),
    "csf": Tissue(t1=2569, t2=329, pd=1.00),
}

#: Repetition and echo time (ms) of the spin-echo sequence that gives each weighting.
SPIN_ECHO = {"T1w": (500.0, 15.0), "T2w": (3500.0, 100.0), "PDw": (3500.0, 15.0)}


def spin_echo(tissue: Tissue, repetition_ms: float, echo_ms: float) -> float:
    """Signal of a spin-echo sequence: S = PD · (1 − exp(−TR / T1)) · exp(−TE / T2)."""
    return float(tissue.pd * (1 - np.exp(-repetition_ms / tissue.t1)) * np.exp(-echo_ms / tissue.t2))


def tissue_signals(contrast: str, jitter: dict[str, float] | None = None) -> dict[str, float]:
    """Signal of every tissue under a contrast of ``SPIN_ECHO``, relative to the brightest.

    Parameters
    ----------
    contrast : {"T1w", "T2w", "PDw"}
    jitter : mapping, optional
        Tissue → factor on its T1 and T2, for differences between people and scanners.
    """
    jitter = jitter or {}
    signals = {}
    for name, tissue in TISSUES.items():
        factor = jitter.get(name, 1.0)
        varied = Tissue(tissue.t1 * factor, tissue.t2 * factor, tissue.pd)
        signals[name] = spin_echo(varied, *SPIN_ECHO[contrast])
    brightest = max(signals.values())
    return {name: signal / brightest for name, signal in signals.items()}
