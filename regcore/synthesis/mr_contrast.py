"""MR signal equations: the intensity of a tissue in a pulse sequence.

Tissue parameters and sequences are those of the BrainWeb simulator at 1.5 T (Kwan, Evans and Pike, IEEE
TMI 18:1085, 1999): a spoiled gradient echo for T1, a dual spin echo for PD and T2.  BrainWeb does not
distinguish deep grey matter from cortex; here it lies between grey and white matter, like the T1 of the thalamus and
putamen (Rooney et al., Magn. Reson. Med. 57:308, 2007).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from regcore.errors import InputError


@dataclass(frozen=True)
class Tissue:
    """What a tissue's MR signal depends on.

    Parameters
    ----------
    t1, t2, t2_star : float
        Relaxation times T1, T2 and T2* in ms.
    pd : float
        Proton density relative to water.

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import Tissue
    >>> Tissue(t1=833, t2=83, t2_star=69, pd=0.86)
    Tissue(t1=833, t2=83, t2_star=69, pd=0.86)
    """

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
    """FLASH signal: S = PD · sin α · (1 − E) / (1 − E cos α) · exp(−TE / T2*), with E = exp(−TR / T1).

    Parameters
    ----------
    tissue : Tissue
        What is imaged.
    repetition_ms, echo_ms : float
        TR and TE.
    flip_degrees : float
        α.

    Returns
    -------
    float
        1 is the magnetisation of water at rest.

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import Tissue, spoiled_gradient_echo
    >>> white, csf = Tissue(500, 70, 61, 0.77), Tissue(2569, 329, 58, 1)
    >>> round(spoiled_gradient_echo(white, 18, 10, 30), 4), round(spoiled_gradient_echo(csf, 18, 10, 30), 4)
    (0.0702, 0.021)
    """
    angle = np.deg2rad(flip_degrees)
    recovery = np.exp(-repetition_ms / tissue.t1)
    steady = np.sin(angle) * (1 - recovery) / (1 - recovery * np.cos(angle))
    return float(tissue.pd * steady * np.exp(-echo_ms / tissue.t2_star))


def spin_echo(tissue: Tissue, repetition_ms: float, echo_ms: float) -> float:
    """Spin-echo signal: S = PD · (1 − exp(−TR / T1)) · exp(−TE / T2).

    Parameters
    ----------
    tissue : Tissue
        What is imaged.
    repetition_ms, echo_ms : float
        TR and TE.

    Returns
    -------
    float
        1 is the magnetisation of water at rest.

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import Tissue, spin_echo
    >>> white, csf = Tissue(500, 70, 61, 0.77), Tissue(2569, 329, 58, 1)
    >>> round(spin_echo(white, 3300, 120), 4), round(spin_echo(csf, 3300, 120), 4)
    (0.1385, 0.5022)
    """
    return float(tissue.pd * (1 - np.exp(-repetition_ms / tissue.t1)) * np.exp(-echo_ms / tissue.t2))


def magnetisation_prepared(
    tissue: Tissue,
    repetition_ms: float,
    inversion_ms: float,
    echo_ms: float,
    flip_degrees: float,
    pulses: int,
    spacing_ms: float,
) -> float:
    """MPRAGE signal: the central pulse of a train of spoiled gradient echoes after an inversion.

    Longitudinal magnetisation is followed through one repetition in the steady state: inversion, recovery, pulses
    (each multiplies it by cos α) with recovery between them, recovery.  Without spoiling errors this is exact.

    Parameters
    ----------
    tissue : Tissue
        What is imaged.
    repetition_ms : float
        From one inversion to the next.
    inversion_ms : float
        TI, from the inversion to the central pulse.
    echo_ms : float
        TE.
    flip_degrees : float
        α of each pulse.
    pulses, spacing_ms : int, float
        Length of the train, and time from a pulse to the next.

    Returns
    -------
    float
        1 is the magnetisation of water at rest.

    Raises
    ------
    ValueError
        The train does not fit between the inversion and the end of the repetition.

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import Tissue, magnetisation_prepared
    >>> white = Tissue(500, 70, 61, 0.77)
    >>> round(magnetisation_prepared(white, 2000, 900, 3, 9, pulses=100, spacing_ms=7), 4)
    0.0562
    """
    before = pulses // 2
    wait = inversion_ms - before * spacing_ms
    rest = repetition_ms - wait - pulses * spacing_ms
    if wait < 0 or rest < 0:
        raise ValueError(
            f"{pulses} pulses, {spacing_ms} ms apart, do not fit around TI = {inversion_ms} ms in {repetition_ms} ms"
        )
    angle = np.deg2rad(flip_degrees)
    pulse = _then((np.cos(angle), 0.0), _recovery(spacing_ms, tissue))
    to_centre = _then((-1.0, 0.0), _recovery(wait, tissue), *[pulse] * before)
    factor, offset = _then(to_centre, *[pulse] * (pulses - before), _recovery(rest, tissue))
    steady = offset / (1 - factor)
    central = to_centre[0] * steady + to_centre[1]
    return float(tissue.pd * abs(np.sin(angle) * central) * np.exp(-echo_ms / tissue.t2_star))


def _recovery(duration_ms: float, tissue: Tissue) -> tuple[float, float]:
    """Effect of time on longitudinal magnetisation M, as (a, b) of a M + b, in units of its equilibrium."""
    left = float(np.exp(-duration_ms / tissue.t1))
    return left, 1 - left


def _then(*steps: tuple[float, float]) -> tuple[float, float]:
    """Compose several maps a M + b, one after the other."""
    factor, offset = 1.0, 0.0
    for a, b in steps:
        factor, offset = a * factor, a * offset + b
    return factor, offset


#: The series of SynthMorph's Experiment 2, over the flip angle and over TI.  The paper does not give the pulse train.
FLASH: dict[str, Any] = {"repetition_ms": 20, "echo_ms": 2}
MPRAGE: dict[str, Any] = {"repetition_ms": 5000, "echo_ms": 2.98, "flip_degrees": 4, "pulses": 80, "spacing_ms": 7}
FLIP_DEGREES, INVERSION_MS = (2, 40), (300, 1000)


def contrast_signal(tissue: Tissue, contrast: str) -> float:
    """Signal under a named protocol.

    Parameters
    ----------
    tissue : Tissue
        What is imaged.
    contrast : str
        ``T1w`` (18 / 10 ms, 30°), ``T2w`` and ``PDw`` (3300 / 120, 35 ms) of BrainWeb [1]_; ``FLASH-30`` with another
        flip angle in degrees, ``MPRAGE-700`` with another inversion time in ms, as in Experiment 2 of SynthMorph.

    Returns
    -------
    float
        1 is the magnetisation of water at rest.

    References
    ----------
    .. [1] Kwan, Evans and Pike, "MRI simulation-based evaluation of image-processing and classification methods",
       IEEE TMI 1999.

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import Tissue, contrast_signal
    >>> grey, white = Tissue(833, 83, 69, 0.86), Tissue(500, 70, 61, 0.77)
    >>> contrast_signal(white, "T1w") > contrast_signal(grey, "T1w")
    True
    >>> contrast_signal(white, "T2w") > contrast_signal(grey, "T2w")
    False
    """
    if found := of_series(contrast):
        kind, number = found
        if kind == "FLASH":
            return spoiled_gradient_echo(tissue, **FLASH, flip_degrees=number)
        return magnetisation_prepared(tissue, **MPRAGE, inversion_ms=number)
    if contrast == "T1w":
        return spoiled_gradient_echo(tissue, repetition_ms=18, echo_ms=10, flip_degrees=30)
    return spin_echo(tissue, repetition_ms=3300, echo_ms={"T2w": 120, "PDw": 35}[contrast])


def of_series(contrast: str) -> tuple[str, int] | None:
    """Series and number of a contrast such as ``FLASH-30``; None for any other.

    Parameters
    ----------
    contrast : str
        Name of a contrast.

    Returns
    -------
    (str, int) or None

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import of_series
    >>> of_series("FLASH-30"), of_series("T1w")
    (('FLASH', 30), None)
    """
    found = re.fullmatch(r"(FLASH|MPRAGE)-([1-9]\d*)", contrast)
    return (found[1], int(found[2])) if found else None


def check_contrasts(contrasts: Iterable[str], where: str) -> None:
    """Refuse a flip angle or an inversion time outside the range of SynthMorph's experiment.

    Parameters
    ----------
    contrasts : iterable of str
        Names of contrasts.
    where : str
        The key that they came from, for error messages.

    Raises
    ------
    InputError
        A contrast of a series is outside its range.

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import check_contrasts
    >>> check_contrasts(["T1w", "FLASH-30"], "cohort.embedded.contrasts")
    """
    for contrast in contrasts:
        if found := of_series(contrast):
            low, high = {"FLASH": FLIP_DEGREES, "MPRAGE": INVERSION_MS}[found[0]]
            if not low <= found[1] <= high:
                raise InputError(f"{where}: {contrast} is outside {found[0]}-{low} to {found[0]}-{high}")


def tissue_signals(contrast: str, jitter: dict[str, float] | None = None) -> dict[str, float]:
    """Signal of every tissue under a contrast, relative to the brightest.

    Parameters
    ----------
    contrast : str
        As for :func:`contrast_signal`.
    jitter : mapping, optional
        Tissue → factor of its relaxation times, for differences between subjects.

    Returns
    -------
    dict of str → float
        The brightest is 1.

    Examples
    --------
    >>> from regcore.synthesis.mr_contrast import tissue_signals
    >>> {name: round(signal, 2) for name, signal in tissue_signals("T1w").items()}
    {'white': 1.0, 'grey': 0.74, 'deep': 0.85, 'csf': 0.3}
    """
    jitter = jitter or {}
    signals = {}
    for name, tissue in TISSUES.items():
        factor = jitter.get(name, 1.0)
        varied = Tissue(tissue.t1 * factor, tissue.t2 * factor, tissue.t2_star * factor, tissue.pd)
        signals[name] = contrast_signal(varied, contrast)
    brightest = max(signals.values())
    return {name: signal / brightest for name, signal in signals.items()}
