"""The operator's SuperLink, behind one open port at which only firms' nodes are heard.

Flower 1.41 serves everything at one port: what nodes ask (/v1/fleet, signed), and, without asking
who it is, what registers nodes and starts runs (/v1/control) and hands out tasks (/v1/runtime).
Whoever reaches that port could register a key of its own or run code at every firm. So the process
listens at two ports here: the open one answers nothing but /v1/fleet, and all the rest is at a port
of the loopback interface.

A signature of Flower's covers the time and not what is asked, and is good for 305 seconds. So a
signed time is heard once.

Whoever finds Flower's database locked for 5 seconds loses what he brought, and the operator's app
waits three minutes for the rest of it. With twenty nodes that happens; so here he waits longer.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import time
from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, final

import uvicorn
from cryptography.hazmat.primitives import serialization
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from sqlalchemy import event
from sqlalchemy.pool import Pool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parties.exchange import FedpactError
from simulations.deploy.layout import OperatorFolder, find_operator

FLEET = "/v1/fleet/"
ACTIVATE = f"{FLEET}activate-node"
GOOD_FOR = TIMESTAMP_TOLERANCE + 2 * SYSTEM_TIME_TOLERANCE  # seconds; then Flower itself refuses
LOCKED_S = 30  # what a lock of the database is waited for
CONTROL = ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API")

log = logging.getLogger("fedpact.superlink")


@final
class Gate:
    """Lets through the open port what firms' nodes ask, each signed time once.

    Args:
        app: the SuperLink.
        port: the open port; what comes to any other is not looked at.
        start: when this process began to listen, Unix seconds. Times signed before that are asked
            for again: which of them were heard is not known any more.
        nodes: folder of the public keys of registered nodes; None: nobody is registered.
    """

    def __init__(self, app: ASGIApp, port: int, start: float, nodes: Path | None = None) -> None:
        self._app, self._port, self._nodes = app, port, nodes
        self._since = start + SYSTEM_TIME_TOLERANCE  # a firm's clock may be ahead
        self._heard: dict[tuple[bytes, str], float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["server"][1] != self._port:
            await self._app(scope, receive, send)
            return
        asked = f"{scope.get('method')} {scope['path']}"
        if scope["type"] != "http" or not asked.startswith(f"POST {FLEET}"):
            await self._refuse(scope, send, 404, f"{asked} is not for nodes")
            return
        stamp = _stamp(scope)
        if stamp is None:  # Flower refuses it
            await self._app(scope, receive, send)
            return
        signed = datetime.fromisoformat(stamp[1]).timestamp()
        # A node signs anew and asks again after 503; at 401 it would end.
        if signed < self._since:
            await self._refuse(scope, send, 503, f"{asked} was signed before this process began")
            return
        if stamp in self._heard:
            await self._refuse(scope, send, 503, f"{asked} is signed with a time heard before")
            return
        self._remember(stamp)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 401:
                    self._heard.pop(stamp, None)  # else strangers fill the memory
                if message["status"] == 500:
                    # Its database was locked, with many nodes: at 500 an answer would be lost.
                    log.warning("%s failed: the node is told to come again", asked)
                    message = {**message, "status": 503}
                if message["status"] == 412 and scope["path"] == ACTIVATE and self._knows(stamp[0]):
                    # It was killed and is back before Flower has noticed that it was gone (a
                    # minute). At 412 it would end, at 503 it asks again.
                    log.info("a node that was online already is told to come again")
                    message = {**message, "status": 503}
            await send(message)

        await self._app(scope, receive, told)

    def _knows(self, key: bytes) -> bool:
        """Whether a node's public key (PEM) is registered."""
        if self._nodes is None:
            return False
        return any(_pem(file) == key for file in self._nodes.glob("*.pub"))

    def _remember(self, stamp: tuple[bytes, str]) -> None:
        now = time.monotonic()
        for old in list(self._heard):  # oldest first
            if now - self._heard[old] <= GOOD_FOR:
                break
            del self._heard[old]
        self._heard[stamp] = now

    async def _refuse(self, scope: Scope, send: Send, status: int, why: str) -> None:
        host = (scope.get("client") or ("?",))[0]
        log.warning("refused %s: %s", host, why.encode("ascii", "backslashreplace").decode()[:200])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})


def _pem(file: Path) -> bytes:
    """A node's public key as its node sends it."""
    key = serialization.load_ssh_public_key(file.read_bytes())
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _stamp(scope: Scope) -> tuple[bytes, str] | None:
    """Whose key, and the time that it signed: the text itself, since that is what is signed."""
    headers = Headers(scope=scope)  # as Flower reads them: of two with one name, the first
    try:
        key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
        text = headers[TIMESTAMP_HEADER]
        if datetime.fromisoformat(text).tzinfo is None:
            return None
    except (KeyError, ValueError):
        return None
    return key, text


def wait_for_locks(connection: Any, *_: object) -> None:
    """Have a connection to the database wait for it: told each time, since Flower sets its own."""
    connection.execute(f"PRAGMA busy_timeout = {1000 * LOCKED_S}")


def _opened(address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.create_server(address, family=family)
    except OSError as fault:
        raise FedpactError(
            f"Port {address[1]} cannot be opened ({os.strerror(fault.errno or 0)}); a SuperLink "
            "needs its port and the next one. Stop what has it (./stop.sh), or write a deployment "
            "(or trial) with another port=... and another out=...; firms then have to reach that."
        ) from fault


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.deploy superlink",
        description="The operator's SuperLink: one open port for nodes, the rest on loopback.",
    )
    parser.add_argument("--listen", default="0.0.0.0", metavar="ADDRESS", help="of the open port")
    parser.add_argument("--port", type=int, required=True, help="the open port")
    parser.add_argument("--control-port", type=int, required=True, help="on 127.0.0.1 only")
    parser.add_argument("--folder", type=Path, help="the operator's (default: it is looked for)")
    chosen = parser.parse_args(arguments)
    _serve(find_operator(chosen.folder), chosen.listen, chosen.port, chosen.control_port)
    return 0


def _serve(folder: OperatorFolder, listen: str, port: int, control_port: int) -> None:
    from flwr.superlink.cli.flower_superlink import flower_superlink

    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(shown)
    log.setLevel(logging.INFO)

    def run(app: ASGIApp, **settings: Any) -> None:
        # Were this not called any more (another Flower), no port but the loopback one would open.
        family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        opened = _opened((listen, port), family)
        inner = _opened((settings["host"], settings["port"]), socket.AF_INET)
        gate = Gate(app, port, time.time(), folder.nodes)
        config = uvicorn.Config(gate, **settings)
        server = uvicorn.Server(config)
        log.info(
            "open for nodes: %s port %d; control: 127.0.0.1 port %d", listen, port, control_port
        )
        server.run(sockets=[opened, inner])
        if not server.started:
            sys.exit(3)

    event.listen(Pool, "checkout", wait_for_locks)
    uvicorn.run = run  # type: ignore[assignment]  # it opens one port only
    for variable in CONTROL:
        os.environ.pop(variable, None)  # these would open the control API on a port of its own
    certificates = {
        "ca-certfile": folder.authority,
        "certfile": folder.certificate,
        "keyfile": folder.certificate_key,
    }
    sys.argv = [
        *("flower-superlink", "--host", "127.0.0.1", "--port", str(control_port)),
        *(word for key, path in certificates.items() for word in (f"--ssl-{key}", str(path))),
        *("--database", str(folder.database), "--enable-supernode-auth"),
        "--disable-runtime-dependency-installation",
    ]
    flower_superlink()
