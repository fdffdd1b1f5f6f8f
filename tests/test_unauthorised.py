"""Who may not take part is refused, and never gets a message: each way in, tried on real processes.

The operator has a network namespace of its own where that can be made, else plain loopback. The
table in the README says what was tried.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from simulations.deploy.certificates import Authority, make_node_keys
from simulations.deploy.superlink import Gate
from tests.checks import SMALL_LOANS
from tests.federation import Federation, federation, free_ports

pytestmark = pytest.mark.flower

FIRMS = ("lender_a", "lender_b")


# ------------------------------------------------------------------------ the operator, and its net


@contextmanager
def apart() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The operator's address, and the words that start a command where it is."""
    name, low = f"fedpact{os.getpid()}", os.getpid() % 16_000 * 4
    net = f"10.201.{low // 256}"
    here, there = f"{net}.{low % 256 + 2}", f"{net}.{low % 256 + 1}"
    inside = ("ip", "netns", "exec", name)
    steps = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"fp{low}a", "type", "veth", "peer", "name", f"fp{low}b"],
        ["ip", "link", "set", f"fp{low}b", "netns", name],
        ["ip", "addr", "add", f"{here}/30", "dev", f"fp{low}a"],
        ["ip", "link", "set", f"fp{low}a", "up"],
        [*inside, "ip", "addr", "add", f"{there}/30", "dev", f"fp{low}b"],
        [*inside, "ip", "link", "set", f"fp{low}b", "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
    ]
    try:
        try:
            for step in steps:
                subprocess.run(step, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield "127.0.0.1", ()
        else:
            yield there, inside
    finally:
        for step in (["ip", "netns", "del", name], ["ip", "link", "del", f"fp{low}a"]):
            with suppress(OSError):
                subprocess.run(step, check=False, capture_output=True)


@pytest.fixture(scope="module")
def net() -> Iterator[tuple[str, tuple[str, ...]]]:
    with apart() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        yield place


@pytest.fixture(scope="module")
def held(net: tuple[str, tuple[str, ...]]) -> Iterator[Federation]:
    """A SuperLink that knows the two firms' nodes, and one whose key is taken back."""
    host, inside = net
    with federation(*SMALL_LOANS, host=host, echo=True) as made:
        operator = made.folder.operator
        make_node_keys(operator.path / "removed.key", operator.nodes / "removed.pub")
        made.trial.start_superlink(inside)
        made.trial.register(inside)
        yield made


def key_of(held: Federation, firm: str) -> ec.EllipticCurvePrivateKey:
    path = held.folder.operator.path / "removed.key"
    if firm in FIRMS:
        path = held.folder.firm(firm).node_key
    key = load_ssh_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def signed(key: ec.EllipticCurvePrivateKey, at: datetime | None = None) -> dict[str, str]:
    """The headers with which Flower's node proves who it is."""
    text = (at or datetime.now(UTC)).isoformat()
    values = (public_key_to_bytes(key.public_key()), sign_message(key, text.encode()))
    public, signature = (b64encode(value).decode() for value in values)
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: public,
        FLEET_HTTP_SIGNATURE_HEADER: signature,
        TIMESTAMP_HEADER: text,
    }


def ask(
    held: Federation, path: str, body: Any, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Ask at the open port, from where firms are."""
    trust = ssl.create_default_context(cafile=held.folder.operator.authority)
    kind = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
    with httpx.Client(verify=trust, timeout=20, trust_env=False) as client:
        return client.post(
            f"https://{held.place.address}{path}",
            content=body.SerializeToString(),
            headers=kind | (headers or {}),
        )


_ASK_INSIDE = """\
import json, ssl, sys, httpx
asked = json.load(sys.stdin)
trust = ssl.create_default_context(cafile=asked["ca"])
with httpx.Client(verify=trust, timeout=20, trust_env=False) as client:
    body = bytes.fromhex(asked["body"])
    print(client.post(asked["url"], content=body, headers=asked["headers"]).status_code)
"""


def ask_flower_itself(
    held: Federation, inside: tuple[str, ...], path: str, body: Any, headers: dict[str, str]
) -> int:
    """The status with which Flower answers where nothing stands before it: the operator's own port,
    from the operator's machine."""
    asked = {
        "ca": str(held.folder.operator.authority),
        "url": f"https://127.0.0.1:{held.place.port + 1}{path}",
        "body": body.SerializeToString().hex(),
        "headers": {"content-type": PROTOBUF_MEDIA_TYPE} | headers,
    }
    done = subprocess.run(
        [*inside, sys.executable, "-c", _ASK_INSIDE],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout)


def superlink_log(held: Federation) -> str:
    return held.trial.read_log(held.folder.operator.path / "superlink.sh")


@contextmanager
def online(held: Federation, firm: str) -> Iterator[Node]:
    """A node of a firm, as far as the SuperLink can tell; the number is the one it goes by."""
    key = key_of(held, firm)
    until = time.monotonic() + 20
    body = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()))
    body.heartbeat_interval = 30
    while (answer := ask(held, "/v1/fleet/activate-node", body, signed(key))).status_code == 503:
        assert time.monotonic() < until  # the process has just begun
        time.sleep(0.5)
    assert answer.status_code == 200
    node = Node(node_id=ActivateNodeResponse.FromString(answer.content).node_id)
    yield node
    ask(held, "/v1/fleet/deactivate-node", DeactivateNodeRequest(node_id=node.node_id), signed(key))


# -------------------------------------------------------------------- replays, and other requests


def test_a_signed_request_is_heard_once_and_never_with_another_body(
    held: Federation, net: tuple[str, tuple[str, ...]]
) -> None:
    pull = "/v1/fleet/pull-messages"
    with online(held, "lender_a") as node:
        headers, body = signed(key_of(held, "lender_a")), PullMessagesRequest(node=node)
        assert ask(held, pull, body, headers).status_code == 200
        assert ask(held, pull, body, headers).status_code == 503
        other = DeactivateNodeRequest(node_id=node.node_id)
        assert ask(held, "/v1/fleet/deactivate-node", other, headers).status_code == 503
        assert "is signed with a time heard before" in superlink_log(held)
        # Flower alone would hear both again for 305 s: it signs the time, not what is asked.
        assert ask_flower_itself(held, net[1], pull, body, headers) == 200
        again = ask_flower_itself(held, net[1], "/v1/fleet/deactivate-node", other, headers)
        assert again == 200


def test_a_signature_is_good_for_its_owners_node_and_for_five_minutes_only(
    held: Federation, net: tuple[str, tuple[str, ...]]
) -> None:
    pull = "/v1/fleet/pull-messages"
    with online(held, "lender_a") as node:
        body = PullMessagesRequest(node=node)
        assert ask(held, pull, body, signed(key_of(held, "lender_b"))).status_code == 401
        late = signed(key_of(held, "lender_a"), datetime.now(UTC) - timedelta(seconds=310))
        assert ask(held, pull, body, late).status_code == 503  # signed before the process began
        assert ask_flower_itself(held, net[1], pull, body, late) == 401
        early = signed(key_of(held, "lender_a"), datetime.now(UTC) + timedelta(seconds=30))
        assert ask(held, pull, body, early).status_code == 401
        altered = signed(key_of(held, "lender_a"))
        altered[TIMESTAMP_HEADER] = datetime.now(UTC).isoformat()
        assert ask(held, pull, body, altered).status_code == 401
        assert ask(held, pull, body, {}).status_code == 401
        # Not refused: a signature that never arrived, with a body that it was not made for. Who
        # would do that has to read the request inside TLS first.
        fresh = signed(key_of(held, "lender_a"))
        answer = ask(held, pull, body, fresh)
        assert answer.status_code == 200
        assert not PullMessagesResponse.FromString(answer.content).messages_list
    assert '"POST /v1/fleet/pull-messages HTTP/1.1" 401' in superlink_log(held)


def test_whoever_reaches_the_open_port_can_register_no_key_take_no_task_and_start_no_run(
    held: Federation, net: tuple[str, tuple[str, ...]], tmp_path: Path
) -> None:
    public = public_key_to_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    register = RegisterNodeRequest(public_key=public)
    for path, body in (
        ("/v1/control/register-node", register),
        ("/v1/runtime/acquire-task", AcquireTaskRequest()),
        ("/v1/fleet/../control/register-node", register),
        ("//v1/control/register-node", register),
        ("/docs", register),
    ):
        assert ask(held, path, body).status_code == 404
    assert "POST /v1/control/register-node is not for nodes" in superlink_log(held)
    # Flower's own command, by somebody who has the app and the certificate
    home = tmp_path / "flwr"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "x"\n[superlink.x]\naddress = "{held.place.address}"\n'
        f'root-certificates = "{held.folder.operator.authority}"\n'
    )
    told = subprocess.run(
        [Path(sys.executable).parent / "flwr", "run", held.folder.operator.app, "x"],
        env=os.environ | {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode != 0
    assert "POST /v1/control/start-run is not for nodes" in superlink_log(held)
    assert "Created run" not in superlink_log(held)
    # Flower alone asks nobody who he is.
    assert (
        ask_flower_itself(held, net[1], "/v1/runtime/acquire-task", AcquireTaskRequest(), {}) == 200
    )
    if net[1]:  # the operator's own port is not there for others
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection((net[0], held.place.port + 1), 5),
        ):
            pass


def test_plain_text_to_the_tls_port_gets_no_answer(held: Federation) -> None:
    with socket.create_connection((held.place.host, held.place.port), 10) as line:
        line.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            assert line.recv(100) == b""


def status_of(gate: Gate, headers: dict[str, str], what: str = "x") -> int:
    """What the gate answers a node that asks this."""
    told: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    raw = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": f"/v1/fleet/{what}", "headers": raw}
    asyncio.run(gate(scope | {"server": ("::", 9)}, None, send))  # type: ignore[arg-type]
    return told[0]


def test_after_a_restart_nothing_that_was_signed_before_is_heard() -> None:
    """What an earlier process heard is not known any more, so it counts as heard."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    key = ec.generate_private_key(ec.SECP384R1())
    headers, now = signed(key), time.time()
    first, second = Gate(app, 9, now - 60), Gate(app, 9, now)
    assert status_of(first, headers) == 200
    assert status_of(second, headers) == 503
    # Two headers of one name: the gate must take the one that Flower takes.
    double = {**signed(key), TIMESTAMP_HEADER.upper(): headers[TIMESTAMP_HEADER]}
    taken = {TIMESTAMP_HEADER.upper(): headers[TIMESTAMP_HEADER], **signed(key)}
    assert status_of(first, double) == 200
    assert status_of(first, taken) == 503


def test_a_known_node_that_flower_thinks_is_online_is_told_to_come_again(tmp_path: Path) -> None:
    """It was killed a moment ago; with 412 it would end, and a firm would have to notice."""
    make_node_keys(tmp_path / "node.key", tmp_path / "a.pub")
    known = load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    assert isinstance(known, ec.EllipticCurvePrivateKey)
    strange = ec.generate_private_key(ec.SECP384R1())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = 500 if scope["path"].endswith("push-messages") else 412
        await send({"type": "http.response.start", "status": status, "headers": []})

    gate = Gate(app, 9, time.time() - 60, tmp_path)
    # A database that is locked for a moment costs no answer.
    assert status_of(gate, signed(known), "push-messages") == 503
    assert status_of(gate, signed(known), "activate-node") == 503
    assert status_of(gate, signed(known), "register-node") == 412
    assert status_of(gate, signed(strange), "activate-node") == 412
    (tmp_path / "a.pub").rename(tmp_path / "a.pub.removed")
    assert status_of(gate, signed(known), "activate-node") == 412


# ------------------------------------------------------------------- real nodes that may not join


Change = Callable[[str], str]  # of supernode.sh


def stranger(held: Federation, name: str, change: Change) -> Path:
    """A node's script of one who is not a firm: lender_a's, changed."""
    folder = held.folder.path / "strangers" / name
    folder.mkdir(parents=True)
    firm = held.folder.firm("lender_a")
    shutil.copy(firm.authority, folder)
    script = folder / "supernode.sh"
    changed = change((firm.path / "supernode.sh").read_text())
    script.write_text(changed.replace('party=\\"lender_a', 'party=\\"stranger'))
    script.chmod(0o755)
    return script


def without(option: str) -> Change:
    return lambda text: "".join(
        line for line in text.splitlines(keepends=True) if option not in line
    )


class Impostor:
    """A server that is not the operator, behind TLS; it keeps what anyone tells it."""

    def __init__(self, folder: Path, authority: Authority, host: str) -> None:
        folder.mkdir(parents=True)
        certificate, key = folder / "server.crt", folder / "server.key"
        authority.write_server(certificate, key, host, also=())
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.settimeout(0.2)
        self.port = self._door.getsockname()[1]
        self.came, self.heard, self._open = 0, b"", True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while self._open:
            with suppress(OSError):
                line, _ = self._door.accept()
                self.came += 1
                line.settimeout(5)
                with line, self._context.wrap_socket(line, server_side=True) as whole:
                    self.heard += whole.recv(10_000)

    def close(self) -> None:
        self._open = False
        self._thread.join(10)
        self._door.close()


@pytest.mark.long
@pytest.mark.parametrize(
    ("who", "host", "days_ago", "told"),
    [
        ("another_authority", "127.0.0.1", 0, "unable to get local issuer certificate"),
        ("expired", "127.0.0.1", 40, "certificate has expired"),
        ("another_host", "operator.example.org", 0, "IP address mismatch"),
    ],
)
def test_a_node_tells_nothing_to_a_server_that_is_not_the_operator(
    held: Federation, who: str, host: str, days_ago: int, told: str
) -> None:
    folder = held.folder.path / "impostors" / who
    authority = Authority("impostor", 30, datetime.now(UTC) - timedelta(days=days_ago))
    impostor = Impostor(folder, authority, host)
    script = stranger(held, f"meets_{who}", lambda text: text)
    shutil.copy(held.folder.firm("lender_a").node_key, script.parent)
    if who != "another_authority":  # then the node trusts it, and something else is wrong
        authority.write(script.parent / "ca.crt", folder / "ca.key")
    try:
        address = f"127.0.0.1:{impostor.port}"
        process = held.trial.start(script, FEDPACT_OPERATOR=address, FLWR_LOG_LEVEL="DEBUG")
        held.trial.wait_for(script, told, process)
        assert impostor.came > 0
        assert impostor.heard == b""
        process.kill()
    finally:
        impostor.close()


@pytest.mark.long
def test_a_node_that_may_not_join_is_refused_and_gets_no_message_while_others_do(
    held: Federation, net: tuple[str, tuple[str, ...]]
) -> None:
    more = {"FLWR_LOG_LEVEL": "DEBUG"}
    unasked = {"FEDPACT_NODE_PORT": str(free_ports(8))}

    def start(name: str, change: Change, key: Path | None = None) -> tuple[Path, Any]:
        script = stranger(held, name, change)
        if key:
            shutil.copy(key, script.parent / "node.key")
        else:
            make_node_keys(script.parent / "node.key", script.parent / "node.pub")
        process = held.trial.start(script, **more, **unasked)
        unasked["FEDPACT_NODE_PORT"] = str(int(unasked["FEDPACT_NODE_PORT"]) + 1)
        return script, process

    operator = held.folder.operator.path
    firm_key = held.folder.firm("lender_a").node_key
    # One whose key is known is online; then the operator takes the key back.
    was, was_process = start("was_registered", lambda text: text, operator / "removed.key")
    held.trial.wait_for(was, "SuperNode ID", was_process)
    removed = held.trial.call(operator / "register.sh", "remove", "removed", within=net[1])
    assert removed.returncode == 0, removed.stderr
    ended = [
        (was, was_process, "SuperNode terminated"),  # at its next question
        (*start("removed", lambda text: text, operator / "removed.key"), "Failed to initialize"),
        (*start("unregistered", lambda text: text), "Failed to initialize"),
        (*start("no_key", without("--auth-supernode-private-key")), "Failed to initialize"),
    ]
    for script, process, told in ended:
        held.trial.wait_for(script, told, process)
        process.wait(30)
    told_operator = superlink_log(held)
    assert '"POST /v1/fleet/pull-messages HTTP/1.1" 401' in told_operator
    assert told_operator.count("[/v1/fleet/activate-node][ApiError:2004]") == 2
    assert told_operator.count("[/v1/fleet/register-node][ApiError:2001]") == 1
    no_trust, no_trust_process = start("no_trust", without("--root-certificates"), firm_key)
    held.trial.wait_for(no_trust, "certificate verify failed", no_trust_process)
    # This one goes on trying, in vain.
    plain = lambda text: without("--auth-supernode")(text).replace(  # noqa: E731
        '--root-certificates "$here/ca.crt"', "--insecure"
    )
    in_clear, in_clear_process = start("in_clear", plain)
    held.trial.wait_for(in_clear, "disconnected without sending a response", in_clear_process)

    nodes = [held.trial.start_node(firm) for firm in FIRMS]
    done = held.run(120, "--no-verdict", "--again", "0", within=net[1])
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((held.folder.operator.results / "told.json").read_text())
    assert list(FIRMS) == told
    for firm, node in zip(FIRMS, nodes, strict=True):
        assert "Receiving: query" in held.trial.read_log(
            held.folder.firm(firm).path / "supernode.sh"
        )
        assert node.poll() is None
    for script in held.folder.path.glob("strangers/*/supernode.sh"):
        assert "Receiving" not in held.trial.read_log(script), script
