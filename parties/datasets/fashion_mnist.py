"""70,000 photographs of clothing, 28x28 pixels: Zalando's Fashion-MNIST, as Debian packages it."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import final

import numpy as np

from parties.datasets.pool import Pool, PoolPart
from parties.exchange import Array, FedpactError

FOLDER = "/usr/share/datasets/fashion-mnist"
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
        return _read(self.folder)[0]

    def rows(self, seed: int) -> tuple[Array, Array]:
        pool, first = _read(self.folder)
        count = len(pool.labels)
        if self.limit > first:
            raise FedpactError(
                f"dataset.limit is {self.limit}, but {self.folder} holds {first} training images; "
                f"legal are 1 to {first}, and 0 for all. Lower dataset.limit."
            )
        if not self.limit:
            return np.arange(first), np.arange(first, count)
        tests = max(1, round((count - first) * self.limit / first))
        rng = np.random.default_rng([1708, 7747, self.limit])
        training = np.sort(rng.permutation(first)[: self.limit])
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
def _read(folder: str) -> tuple[Pool, int]:
    """The training images and then the test images, and how many are for training."""
    pixels, labels = [], []
    for images, names in (FILES[:2], FILES[2:]):
        pixels.append(_idx(folder, images, 3))
        labels.append(_idx(folder, names, 1).astype(np.int64))
        if len(pixels[-1]) != len(labels[-1]) or labels[-1].max(initial=0) >= FashionMnist.classes:
            raise FedpactError(
                f"{_file(folder, names)} has {len(labels[-1])} labels up to "
                f"{labels[-1].max(initial=0)} for {len(pixels[-1])} images; legal is one from 0 to "
                "9 an image. Install the files again: apt install --reinstall "
                "dataset-fashion-mnist."
            )
    flat = np.concatenate([part.reshape(len(part), -1) for part in pixels])
    return Pool(flat, np.concatenate(labels), white=255.0), len(labels[0])


def _idx(folder: str, name: str, dimensions: int) -> Array:
    """An idx file: 0, 0, 8 (bytes), the number of dimensions, sizes (big-endian), the bytes."""
    file = _file(folder, name)
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        if content[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it starts with {content[:4]!r}")
        shape = np.frombuffer(content, ">u4", dimensions, 4).astype(int)
        return np.frombuffer(content, np.uint8, -1, 4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as fault:
        raise FedpactError(
            f"{file} cannot be read ({fault}); legal is an idx file of bytes in {dimensions} "
            "dimension(s). Install it again: apt install --reinstall dataset-fashion-mnist."
        ) from fault
