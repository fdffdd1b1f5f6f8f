"""The firms of every engine, built from the configuration, as text with its sha256.

Nothing of the operator is imported here: a worker that holds firms only is the smaller for it.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import compress, decompress

import torch

from parties.exchange import FedpactError
from parties.firm import Firm
from simulations.build import build, sha256

SQUEEZED = "zlib:"  # no JSON begins so


def squeezed(config: str) -> str:
    """A configuration that goes along with every message: of many firms it says much again."""
    return SQUEEZED + b64encode(compress(config.encode())).decode()


@lru_cache(maxsize=2)
def parsed(text: str, digest: str) -> Any:
    if text.startswith(SQUEEZED):
        text = decompress(b64decode(text.removeprefix(SQUEEZED))).decode()
    if sha256(text) != digest:
        raise FedpactError("The run config was changed on its way: its sha256 differs.")
    # One thread a process: more only fight each other, and sums would differ between machines.
    torch.set_num_threads(1)
    return json.loads(text)


# With fewer places than firms, each would be built again for every message, at 25 ms of CPU.
@lru_cache(maxsize=1024)
def _firm(text: str, digest: str, name: str) -> Firm:
    firm = build(parsed(text, digest)["parties"][name])
    assert isinstance(firm, Firm)
    return firm


def log_to(folder: Path) -> None:
    """In a process of its own (Ray, Flower), log to the run's log as the driver does."""
    logger = logging.getLogger("fedpact")
    if not logger.handlers and folder.is_dir():
        file = logging.FileHandler(folder / "run.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
        logger.setLevel(logging.INFO)


def firm(name: str, text: str, digest: str, folder: str) -> Firm:
    """The firm of this name, in whatever process."""
    log_to(Path(folder))
    return _firm(text, digest, name)
