"""Where a result came from: code, versions, command, seeds, data."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from simulations.study import Study

PACKAGES = ("fedpact", "flwr", "ray", "torch", "numpy", "scikit-learn", "hydra-core", "safetensors")


def provenance(study: Study, engine: str, overrides: list[str]) -> dict[str, Any]:
    """Everything needed to run the same study again."""
    return {
        **origin(overrides),
        "engine": engine,
        "seeds": list(study.seeds),
        "data_sha256": study.hashes(),
    }


def origin(overrides: list[str]) -> dict[str, Any]:
    """What was asked for, of which code, in which versions, when."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": overrides,
        "git": _git(),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "started": now(),
    }


def now() -> str:
    """The present time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the code that runs, and whether it was changed since; None outside a checkout."""

    folder = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder:
            return None  # installed below somebody else's checkout
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
