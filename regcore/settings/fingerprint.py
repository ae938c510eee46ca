"""Fingerprints of settings: what tells whether a result belongs to them."""

import hashlib
import json
from typing import Any


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-like values, equal exactly when they are."""
    canonical = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
