"""The operator's Flower ServerApp: hold every session that is not yet on file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from parties.exchange import FedpactError
from server.docket import Docket as Docket
from server.docket import hold_docket, hold_docket_abreast
from server.transport import Apart, Transport


def server_app(
    docket_of: Callable[[Context], Docket],
    apart_of: Callable[[Context], Apart | None] = lambda context: None,
    ended: Callable[[Context, FedpactError], None] = lambda context, fault: None,
) -> ServerApp:
    """A ServerApp that holds the sessions of the docket that `docket_of` finds.

    Args:
        apart_of: what is added where the firms are real ones.
        ended: told of a fault that ends the study, before it is raised.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            with closing(docket_of(context)) as docket:
                apart = apart_of(context)
                way = Transport(grid, docket.firms, docket.limits, docket.audit, apart)
                if apart is None:
                    hold_docket(docket, way)
                else:
                    hold_docket_abreast(docket, way)
        except FedpactError as fault:
            ended(context, fault)
            raise

    return app
