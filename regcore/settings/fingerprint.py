"""Fingerprints of settings: what tells whether a result belongs to them."""

import hashlib
import json
from typing import Any


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-like values, equal exactly when they are.

    Parameters
    ----------
    *parts : any
        JSON-like; the order of keys does not matter.

    Returns
    -------
    str
        16 hexadecimal digits.

    Examples
    --------
    >>> from regcore.settings.fingerprint import fingerprint
    >>> fingerprint({"window": 9, "steps": 7}) == fingerprint({"steps": 7, "window": 9})
    True
    >>> fingerprint({"window": 9})
    '5b3a55f619484e4c'
    """
    canonical = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
