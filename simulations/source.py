"""The code that runs: its files, one sha256 that stands for all of them, and a copy."""

from __future__ import annotations

import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("conf", "parties", "server", "simulations")


def code_files() -> dict[str, Path]:
    """Name below the copy -> file, of all four packages as this process would import them.

    Bundled data files are among them; caches and hidden files are not.
    """
    found: dict[str, Path] = {}
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            root = Path(place)
            for path in sorted(root.rglob("*")):
                inner = path.relative_to(root)
                cached = any(part == "__pycache__" or part[0] == "." for part in inner.parts)
                if path.is_file() and not cached:
                    found[f"{package}/{inner.as_posix()}"] = path
    return found


def code_digest() -> str:
    """The sha256 of names and contents of all files: equal where the same code runs."""
    whole = hashlib.sha256()
    for name, path in code_files().items():
        whole.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def copy_code(target: Path) -> None:
    """Put a copy of all files below a folder."""
    for name, path in code_files().items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / name)
