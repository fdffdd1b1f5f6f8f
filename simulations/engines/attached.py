"""The ClientApp of a deployment: the same as in every engine, in front of a firm's desk.

Flower starts it anew for every message, so that it loads no more than it must: not the operator's
side, and nothing that computes.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context

from parties.answering import Answering
from parties.app import client_app
from parties.desk.attached import Attached
from simulations.engines.config_keys import DESK


def _desk_of(context: Context) -> Answering:
    return Attached(Path(str(context.node_config[DESK])))


client = client_app(_desk_of)
