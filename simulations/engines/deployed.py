"""The ServerApp of a deployment: the same as in every engine, with firms elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context

from parties.exchange import FedpactError
from server.app import server_app
from simulations.engines.config_keys import DIGEST, FOLDER

if TYPE_CHECKING:
    from server.docket import Docket
    from server.transport import Apart

OTHER_S = 120.0  # how long another app that writes to the same results is waited for
ENDED = "ended.txt"  # in the results: why the study cannot go on


def _docket_of(context: Context) -> Docket:
    from simulations.engines.apps import docket_of
    from simulations.results import RunFolder

    # An app whose SuperLink was killed may live on for a while: it must not write beside this one.
    _held.enter_context(RunFolder(_folder(context)).lock(OTHER_S))
    return docket_of(context, away=True)


def _apart_of(context: Context) -> Apart:
    from simulations.deploy.apart import apart_of

    return apart_of(_folder(context), str(context.run_config[DIGEST]))


def _ended(context: Context, fault: FedpactError) -> None:
    (_folder(context) / ENDED).write_text(f"{fault}\n", encoding="utf-8")


def _folder(context: Context) -> Path:
    return Path(str(context.run_config[FOLDER]))


_held = ExitStack()  # until this process ends
server = server_app(_docket_of, _apart_of, _ended)
