"""Files that are replaced whole or not at all, and in which damage is noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file by its new content, or leave the old one: never a part of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def digest(content: bytes | bytearray) -> str:
    """Hex sha256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def write_marked(path: Path, content: bytes) -> None:
    """`write_whole`, with the content's sha256 in a line before it."""
    write_whole(path, f"{digest(content)}\n".encode() + content)


def read_marked(path: Path) -> bytes | None:
    """What `write_marked` wrote; None if it is not there, or not what was written."""
    if not path.exists():
        return None
    mark, _, content = path.read_bytes().partition(b"\n")
    return content if digest(content).encode() == mark else None
