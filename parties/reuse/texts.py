"""JSON of results: strict, so that any program reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_text(value: Any) -> str:
    """JSON; a number that is not finite becomes its name ("nan", "inf", "-inf").

    >>> to_text({"worst": float("inf")})
    '{\\n "worst": "inf"\\n}'
    """
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
