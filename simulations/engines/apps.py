"""The two Flower apps of every engine, built from the configuration that the run config carries."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context

from parties.app import client_app
from parties.exchange import FedpactError
from parties.firm import Firm
from server.app import server_app
from simulations.build import build, sha256
from simulations.docket import RunDocket
from simulations.engines.config_keys import CONFIG, DIGEST, FOLDER, PARTY
from simulations.results import RunFolder
from simulations.study import study_of


def run_config(config: str, folder: Path) -> dict[str, Any]:
    """Flower's run config (flat, scalars only): the configuration as JSON, with its sha256."""
    return {CONFIG: config, DIGEST: sha256(config), FOLDER: str(folder)}


@lru_cache(maxsize=2)
def _parsed(text: str, digest: str) -> Any:
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


def firm_of(context: Context) -> Firm:
    """The firm of this node: named by its node config, or by its place among the firms."""
    _log_to(Path(str(context.run_config[FOLDER])))
    text, digest = str(context.run_config[CONFIG]), str(context.run_config[DIGEST])
    name = context.node_config.get(PARTY)
    if name is None:
        names = sorted(_parsed(text, digest)["parties"])
        name = names[int(context.node_config["partition-id"])]
    return _firm(text, digest, str(name))


def docket_of(context: Context, away: bool = False) -> RunDocket:
    """What is still to hold of the study in a run config (away: its firms are elsewhere)."""
    text, digest = str(context.run_config[CONFIG]), str(context.run_config[DIGEST])
    folder = Path(str(context.run_config[FOLDER]))
    study = study_of(_parsed(text, digest), away=away)
    _log_to(folder)
    return RunDocket(study, RunFolder(folder))


client = client_app(firm_of)
server = server_app(docket_of)
