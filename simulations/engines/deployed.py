"""The two Flower apps of a deployment: the same as in every engine, at the operator and at firms.

What runs at a firm is started anew for every message: it loads no more than it must (no torch), and
hands the question to the firm's desk. So this module imports late.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context

from parties.answering import Answering
from parties.app import client_app
from server.app import server_app

if TYPE_CHECKING:
    from server.docket import Docket
    from server.transport import Apart

CONFIG, DIGEST, FOLDER = "config", "config-sha256", "folder"  # as in simulations.engines.apps
PARTY, DESK = "party", "desk"


def _desk_of(context: Context) -> Answering:
    from parties.desk.attached import Attached

    return Attached(Path(str(context.node_config[DESK])))


def _docket_of(context: Context) -> Docket:
    from simulations.engines.apps import docket_of

    return docket_of(context, away=True)


def _apart_of(context: Context) -> Apart:
    from simulations.deploy.apart import apart_of

    return apart_of(Path(str(context.run_config[FOLDER])), str(context.run_config[DIGEST]))


client = client_app(_desk_of)
server = server_app(_docket_of, _apart_of)
