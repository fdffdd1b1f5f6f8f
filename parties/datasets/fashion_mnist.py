"""70,000 photographs of clothing, 28x28 pixels: Zalando's Fashion-MNIST, as Debian packages it."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np

from parties.datasets.pool import Pool, PoolPart
from parties.exchange import Array, FedpactError

FOLDER = "/usr/share/datasets/fashion-mnist"
MOST_PACKED = 1100  # times as small can gzip make a file, at most
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@final
@dataclass(frozen=True)
class FashionMnist(PoolPart):
    """One firm's photographs of clothing: 784 pixels, 10 classes, with a test part of its own.

    Args:
        client, clients, partition, shift: see `PoolPart`.
        folder: where the four idx files are, packed (.gz) or not.
        limit: training images to use, drawn once, with as great a share of the test images; 0 for
            all (60,000 and 10,000).

    References:
        Xiao, Rasul, Vollgraf, arXiv 1708.07747. Licence Expat; Debian `dataset-fashion-mnist`.
    """

    folder: str = FOLDER
    limit: int = 0

    classes = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.limit, int) and not isinstance(self.limit, bool)
        if not whole or self.limit < 0:
            raise FedpactError(
                f"dataset.limit is {self.limit!r}; legal is a number of training images >= 1, and "
                "0 for all. Set dataset.limit=6000 for a tenth."
            )

    @property
    def installed(self) -> bool:
        """Whether all four files are there."""
        return all(_found(self.folder, name) is not None for name in FILES)

    @property
    def at_hand(self) -> bool:
        return self.installed

    def hashes(self) -> dict[str, str]:
        return dict(_hashes(self.folder))

    def pool(self) -> Pool:
        return _read(self.folder, self.limit)[0]

    def rows(self, seed: int) -> tuple[Array, Array]:
        pool, first = _read(self.folder, self.limit)
        return _drawn(first, len(pool.labels), self.limit)


def _drawn(first: int, count: int, limit: int) -> tuple[Array, Array]:
    """Rows for training, of the first, and for testing, of the others."""
    if not limit:
        return np.arange(first), np.arange(first, count)
    tests = max(1, round((count - first) * limit / first))
    rng = np.random.default_rng([1708, 7747, limit])
    training = np.sort(rng.permutation(first)[:limit])
    return training, np.sort(first + rng.permutation(count - first)[:tests])


def _found(folder: str, name: str) -> Path | None:
    files = (Path(folder).expanduser() / f"{name}{end}" for end in (".gz", ""))
    return next((file for file in files if file.is_file()), None)


def _file(folder: str, name: str) -> Path:
    file = _found(folder, name)
    if file is None:
        raise FedpactError(
            f"dataset.folder is {folder}, and {name}.gz is not there; legal is a folder with the "
            "four idx files of Fashion-MNIST. Install Debian's: apt install "
            "dataset-fashion-mnist. Or name the folder where you have them."
        )
    return file


@cache
def _hashes(folder: str) -> dict[str, str]:
    files = [_file(folder, name) for name in FILES]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@lru_cache(maxsize=1)
def _read(folder: str, limit: int) -> tuple[Pool, int]:
    """The training images and then the test images, and how many are for training."""
    shapes = [_shape(_file(folder, name), 3) for name in (FILES[0], FILES[2])]
    first = shapes[0][0]
    if limit > first:
        raise FedpactError(
            f"dataset.limit is {limit}, but {folder} holds {first} training images; legal are 1 "
            f"to {first}, and 0 for all. Lower dataset.limit."
        )
    flat = np.empty((sum(shape[0] for shape in shapes), math.prod(shapes[0][1:])), np.uint8)
    labels, end = list[Array](), 0
    for shape, images, names in zip(shapes, FILES[::2], FILES[1::2], strict=True):
        _read_idx(_file(folder, images), 3, flat[end : end + shape[0]])
        end += shape[0]
        found = np.empty(_shape(_file(folder, names), 1), np.uint8)
        _read_idx(_file(folder, names), 1, found)
        labels.append(found.astype(np.int64))
        if shape[0] != len(labels[-1]) or labels[-1].max(initial=0) >= FashionMnist.classes:
            raise FedpactError(
                f"{_file(folder, names)} has {len(labels[-1])} labels up to "
                f"{labels[-1].max(initial=0)} for {shape[0]} images; legal is one from 0 to "
                "9 an image. Install the files again: apt install --reinstall "
                "dataset-fashion-mnist."
            )
    kept = np.concatenate(_drawn(first, len(flat), limit)) if limit else None
    pixels = flat if kept is None else flat[kept]
    return Pool(pixels, np.concatenate(labels), 255.0, kept), first


def _shape(file: Path, dimensions: int) -> tuple[int, ...]:
    """Sizes of an idx file of bytes."""
    with _opened(file, dimensions) as (_, shape):
        return shape


def _read_idx(file: Path, dimensions: int, into: Array) -> None:
    """Read an idx file to where its bytes belong, so that there is no second copy of a large one.

    Args:
        into: (size, ...) uint8, contiguous.
    """
    with _opened(file, dimensions) as (content, shape):
        if math.prod(shape) != into.size:
            raise ValueError(f"its sizes are {shape}")
        room = into.reshape(-1).data
        read = 0
        while read < len(room) and (count := content.readinto(room[read:])):
            read += count
        if read < len(room) or content.read(1):
            raise ValueError(f"its sizes are {shape}, and it has other than {len(room)} bytes")


@contextmanager
def _opened(file: Path, dimensions: int) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """An idx file behind its head: 0, 0, 8 (bytes), the number of dimensions, sizes (big-endian).

    Raises:
        FedpactError: it is not such a file; also where what is read of it says so.
    """
    try:
        opened: Callable[[Path, str], Any] = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rb") as content:
            head = content.read(4 + 4 * dimensions)
            if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < 4 + 4 * dimensions:
                raise ValueError(f"it starts with {head[:4]!r}")
            shape = tuple(np.frombuffer(head, ">u4", dimensions, 4).tolist())
            if math.prod(shape) > MOST_PACKED * file.stat().st_size:
                raise ValueError(f"its sizes are {shape}, more than there can be in it")
            yield content, shape
    except (OSError, EOFError, ValueError, zlib.error) as fault:
        raise FedpactError(
            f"{file} cannot be read ({fault}); legal is an idx file of bytes in {dimensions} "
            "dimension(s). Install it again: apt install --reinstall dataset-fashion-mnist."
        ) from fault
