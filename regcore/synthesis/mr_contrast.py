"""MR signal equations: what a tissue looks like under a pulse sequence.

Tissue parameters and sequences are those of the BrainWeb simulator at 1.5 T (Kwan, Evans and Pike, IEEE
TMI 18:1085, 1999): a spoiled gradient echo for T1, a dual spin echo for PD and T2.  Deep grey matter, which
BrainWeb does not tell from cortex, is put between grey and white matter, where the T1 of the thalamus and
putamen lies (Rooney et al., Magn. Reson. Med. 57:308, 2007).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tissue:
    """Relaxation times T1, T2 and T2* in ms, and proton density relative to water."""

    t1: float
    t2: float
    t2_star: float
    pd: float


TISSUES = {
    "white": Tissue(t1=500, t2=70, t2_star=61, pd=0.77),
    "grey": Tissue(t1=833, t2=83, t2_star=69, pd=0.86),
    "deep": Tissue(t1=667, t2=76, t2_star=65, pd=0.82),
    "csf": Tissue(t1=2569, t2=329, t2_star=58, pd=1.00),
}


def spoiled_gradient_echo(tissue: Tissue, repetition_ms: float, echo_ms: float, flip_degrees: float) -> float:
    """FLASH signal: S = PD · sin α · (1 − E) / (1 − E cos α) · exp(−TE / T2*), with E = exp(−TR / T1)."""
    angle = np.deg2rad(flip_degrees)
    recovery = np.exp(-repetition_ms / tissue.t1)
    steady = np.sin(angle) * (1 - recovery) / (1 - recovery * np.cos(angle))
    return float(tissue.pd * steady * np.exp(-echo_ms / tissue.t2_star))


def spin_echo(tissue: Tissue, repetition_ms: float, echo_ms: float) -> float:
    """Spin-echo signal: S = PD · (1 − exp(−TR / T1)) · exp(−TE / T2)."""
    return float(tissue.pd * (1 - np.exp(-repetition_ms / tissue.t1)) * np.exp(-echo_ms / tissue.t2))


def contrast_signal(tissue: Tissue, contrast: str) -> float:
    """Signal under BrainWeb's protocol for ``T1w`` (18 / 10 ms, 30°), ``T2w`` or ``PDw`` (3300 / 120, 35 ms)."""
    if contrast == "T1w":
        return spoiled_gradient_echo(tissue, repetition_ms=18, echo_ms=10, flip_degrees=30)
    return spin_echo(tissue, repetition_ms=3300, echo_ms={"T2w": 120, "PDw": 35}[contrast])


def tissue_signals(contrast: str, jitter: dict[str, float] | None = None) -> dict[str, float]:
    """Signal of every tissue under a contrast, relative to the brightest.

    Parameters
    ----------
    contrast : {"T1w", "T2w", "PDw"}
    jitter : mapping, optional
        Tissue → factor on its relaxation times, for differences between people.
    """
    jitter = jitter or {}
    signals = {}
    for name, tissue in TISSUES.items():
        factor = jitter.get(name, 1.0)
        varied = Tissue(tissue.t1 * factor, tissue.t2 * factor, tissue.t2_star * factor, tissue.pd)
        signals[name] = contrast_signal(varied, contrast)
    brightest = max(signals.values())
    return {name: signal / brightest for name, signal in signals.items()}
