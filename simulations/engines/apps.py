"""The operator and the firms of every engine, and the two Flower apps that they are behind.

All are built from the configuration, as text with its sha256: what travels to every process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from flwr.app import Context

from parties.app import client_app
from parties.firm import Firm
from parties.memory import Memory
from server.app import server_app
from server.docket import hold_docket
from simulations.build import sha256
from simulations.docket import RunDocket
from simulations.engines import Job, in_turn
from simulations.engines.config_keys import CONFIG, DIGEST, FOLDER, PARTY
from simulations.engines.direct import Crew, Direct, Here
from simulations.engines.firms import firm, log_to, parsed
from simulations.engines.one_firm import OneFirm, Together
from simulations.results import RunFolder
from simulations.study import study_of


def run_config(config: str, folder: Path) -> dict[str, Any]:
    """Flower's run config (flat, scalars only): the configuration as JSON, with its sha256."""
    return {CONFIG: config, DIGEST: sha256(config), FOLDER: str(folder)}


def firm_of(context: Context) -> Firm:
    """The firm of this node: named by its node config, or by its place among the firms."""
    text, digest = str(context.run_config[CONFIG]), str(context.run_config[DIGEST])
    name = context.node_config.get(PARTY)
    if name is None:
        names = sorted(parsed(text, digest)["parties"])
        name = names[int(context.node_config["partition-id"])]
    return firm(str(name), text, digest, str(context.run_config[FOLDER]))


def docket_of(context: Context, away: bool = False) -> RunDocket:
    """What is still to hold of the study in a run config (away: its firms are elsewhere)."""
    text, digest = str(context.run_config[CONFIG]), str(context.run_config[DIGEST])
    return _docket(text, digest, Path(str(context.run_config[FOLDER])), away)


def _docket(text: str, digest: str, folder: Path, away: bool = False) -> RunDocket:
    study = study_of(parsed(text, digest), away=away)
    log_to(folder)
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
        crew = crew_of(f"{firm.__module__}:{firm.__name__}", arguments)
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
