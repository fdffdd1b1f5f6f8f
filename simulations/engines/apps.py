"""The operator and the firms of every engine, and the two Flower apps that they are behind.

All are built from the configuration, as text with its sha256: what travels to every process.
"""

from __future__ import annotations

import gc
import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import compress, decompress

import torch
from flwr.app import Context

from parties.app import client_app
from parties.exchange import FedpactError
from parties.firm import Firm
from parties.memory import Memory
from server.app import server_app
from server.docket import hold_docket
from simulations.build import build, sha256
from simulations.docket import RunDocket
from simulations.engines import Job, in_turn
from simulations.engines.config_keys import CONFIG, DIGEST, FOLDER, PARTY
from simulations.engines.direct import Crew, Direct, Here, OneFirm, Together
from simulations.results import RunFolder
from simulations.study import study_of

SQUEEZED = "zlib:"  # no JSON begins so


def run_config(config: str, folder: Path) -> dict[str, Any]:
    """Flower's run config (flat, scalars only): the configuration as JSON, with its sha256."""
    return {CONFIG: config, DIGEST: sha256(config), FOLDER: str(folder)}


def squeezed(config: str) -> str:
    """A configuration that goes along with every message: of many firms it says much again."""
    return SQUEEZED + b64encode(compress(config.encode())).decode()


@lru_cache(maxsize=2)
def _parsed(text: str, digest: str) -> Any:
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
    firm = build(_parsed(text, digest)["parties"][name])
    assert isinstance(firm, Firm)
    return firm


def _log_to(folder: Path) -> None:
    """In a process of its own (Ray, Flower), log to the run's log as the driver does."""
    logger = logging.getLogger("fedpact")
    if not logger.handlers and folder.is_dir():
        file = logging.FileHandler(folder / "run.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
        logger.setLevel(logging.INFO)


def firm(name: str, text: str, digest: str, folder: str) -> Firm:
    """The firm of this name, in whatever process."""
    _log_to(Path(folder))
    return _firm(text, digest, name)


def firm_of(context: Context) -> Firm:
    """The firm of this node: named by its node config, or by its place among the firms."""
    text, digest = str(context.run_config[CONFIG]), str(context.run_config[DIGEST])
    name = context.node_config.get(PARTY)
    if name is None:
        names = sorted(_parsed(text, digest)["parties"])
        name = names[int(context.node_config["partition-id"])]
    return firm(str(name), text, digest, str(context.run_config[FOLDER]))


def docket_of(context: Context, away: bool = False) -> RunDocket:
    """What is still to hold of the study in a run config (away: its firms are elsewhere)."""
    text, digest = str(context.run_config[CONFIG]), str(context.run_config[DIGEST])
    return _docket(text, digest, Path(str(context.run_config[FOLDER])), away)


def _docket(text: str, digest: str, folder: Path, away: bool = False) -> RunDocket:
    study = study_of(_parsed(text, digest), away=away)
    _log_to(folder)
    return RunDocket(study, RunFolder(folder))


def hold_direct(job: Job, crew_of: Callable[[str, tuple[str, ...]], Crew]) -> None:
    """Hold a job with firms that are called.

    Args:
        crew_of: given what makes a firm ("module:function", called with its name and the
            arguments that come second), the firms.
    """
    digest = sha256(job.config)
    arguments = (job.config, digest, str(job.folder))
    with closing(_docket(job.config, digest, job.folder)) as docket:
        crew = crew_of(f"{__name__}:{firm.__name__}", arguments)
        # What was built stays: for Python to look through all of it again takes as long as some
        # rounds of small models.
        gc.freeze()
        try:
            hold_docket(docket, Direct(crew, docket.limits, docket.audit))
        finally:
            gc.unfreeze()


def hold_here(job: Job, together: Together = in_turn) -> None:
    """Hold a job with firms of this process.

    Args:
        together: how those that are asked at once are called.
    """

    def crew_of(maker: str, arguments: tuple[str, ...]) -> Crew:
        firms = {name: firm(name, *arguments) for name in job.firms}
        return Here(
            {n: OneFirm(n, f.answer, Memory(), spared=True) for n, f in firms.items()}, together
        )

    hold_direct(job, crew_of)


client = client_app(firm_of)
server = server_app(docket_of)
