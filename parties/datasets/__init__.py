"""Data sets: what a firm holds, and how it is split. One file each; `Dataset` is the interface."""

from __future__ import annotations

import gzip
import hashlib
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, final

from parties.exchange import Array, FedpactError

if TYPE_CHECKING:
    import pandas as pd

FILES = Path(__file__).parent / "files"


@final
@dataclass(frozen=True)
class Examples:
    """Labelled cases: ids (n,) int64, features (n, d) float32, labels (n,) int64."""

    ids: Array
    features: Array
    labels: Array


@final
@dataclass(frozen=True)
class Cases:
    """Cases whose label the firm does not have: ids (n,) int64, features (n, d) float32."""

    ids: Array
    features: Array


@final
@dataclass(frozen=True)
class Split:
    """One firm's private data under one seed. Parts that a data set lacks are None.

    Args:
        training: what the firm fits on.
        validation: clients that both firms predict, for the joint table.
        contested: clients for whom the firms compete.
        held_out: the firm's own test cases (where firms do not compete for clients).
        common: clients whom all firms serve, each for itself.
    """

    training: Examples
    validation: Cases | None = None
    contested: Cases | None = None
    held_out: Examples | None = None
    common: Cases | None = None


class Dataset(ABC):
    """One firm's view of some real data."""

    classes: int = 2

    @property
    def at_hand(self) -> bool:
        """Whether this machine has the data, whoever's they are; false: only their firm does."""
        return True

    @abstractmethod
    def split(self, seed: int) -> Split:
        """The firm's parts under `seed`: disjoint, and the same for the same seed."""

    @abstractmethod
    def hashes(self) -> dict[str, str]:
        """File name -> sha256 of everything this data set reads."""

    def outcomes(self, seed: int, part: str) -> tuple[Array, Array]:
        """What nature reveals: ids (n,) and true labels (n,) of a part of the clients.

        The part is "validation", "contested" or "common". The market calls this in a simulation;
        a firm never does.
        """
        raise FedpactError(
            f"{type(self).__name__} has no {part} clients: its firms do not compete for clients. "
            "Use market=own_cases with it."
        )


@cache
def read_csv(name: str, sha256: str) -> pd.DataFrame:
    """A table shipped with the package, see `read_known`."""
    import pandas as pd

    return pd.read_csv(io.BytesIO(read_known(name, sha256)))


def read_known(name: str, sha256: str) -> bytes:
    """A packed file shipped with the package, unpacked, read only if it is the one we know.

    Raises:
        FedpactError: the file is missing or not the known one.
    """
    path = FILES / name
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise FedpactError(
            f"The data file {path} cannot be read ({fault.strerror}). Install the package again."
        ) from fault
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise FedpactError(
            f"The data file {path} has sha256 {found}, expected {sha256}: it was changed or cut "
            "off. Restore it from the repository (git checkout) and run again."
        )
    return gzip.decompress(content)
