"""A real federation on this machine: a SuperLink and SuperNodes, started by the scripts of a
deployment's folder, with TLS and node authentication. Nothing of it is left afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import final

from simulations.deploy.bundle import write_bundle
from simulations.deploy.layout import Deployment
from simulations.deploy.writing import Place, write_deployment
from simulations.engines.flower_run import MARK, stop_marked
from tests.checks import config_of

ROOT = Path(__file__).resolve().parents[1]


@final
class Federation:
    """The processes of one deployment.

    Args:
        folder: as `python -m simulations.deploy` writes it.
        mark: the environment variable by which its processes are found.
    """

    def __init__(self, folder: Deployment, place: Place, mark: str) -> None:
        self.folder, self.place, self.mark = folder, place, mark
        self._started: list[subprocess.Popen[bytes]] = []

    def log(self, script: Path) -> Path:
        """Where a script that was started writes: superlink.log, supernode.log, desk.out."""
        return script.with_suffix(".out" if script.stem == "desk" else ".log")

    def start(
        self, script: Path, within: Sequence[str] = (), **more: str
    ) -> subprocess.Popen[bytes]:
        """Start a script in the background; the process is what it becomes, not a shell.

        Args:
            within: words that the command begins with, such as `ip netns exec NAME`.
            more: environment variables.
        """
        with self.log(script).open("ab") as log:
            process = subprocess.Popen(
                [*within, str(script)],
                env=self._environment | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Kill whatever of it still runs."""
        stop_marked(f"{MARK}={self.mark}".encode())
        for process in self._started:
            process.wait(10)

    def call(
        self, script: Path, *words: str, timeout: float = 60, within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        return subprocess.run(
            [*within, str(script), *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start_superlink(self, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """The operator's SuperLink, once it listens."""
        script = self.folder.operator.path / "superlink.sh"
        seen = self.read_log(script).count("Application startup complete")
        process = self.start(script, within)
        self.wait_for(script, "Application startup complete", process, seen + 1)
        return process

    def register(self, within: Sequence[str] = ()) -> None:
        """Every firm's node becomes known."""
        done = self.call(self.folder.operator.path / "register.sh", within=within)
        assert done.returncode == 0, done.stderr

    def start_node(
        self, firm: str, within: Sequence[str] = (), **more: str
    ) -> subprocess.Popen[bytes]:
        """A firm's SuperNode; it connects by itself."""
        return self.start(self.folder.firm(firm).path / "supernode.sh", within, **more)

    def start_desk(self, firm: str) -> subprocess.Popen[bytes]:
        """A firm's desk, once it answers."""
        script = self.folder.firm(firm).path / "desk.sh"
        seen = self.read_log(script).count("answers at")
        process = self.start(script)
        self.wait_for(script, "answers at", process, seen + 1)
        return process

    def run(
        self, timeout: float, *words: str, within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Hold the study, as run.sh does."""
        script = self.folder.operator.path / "run.sh"
        return self.call(script, *words, timeout=timeout, within=within)

    def read_log(self, script: Path) -> str:
        """What a started script has written so far."""
        log = self.log(script)
        return log.read_text(errors="replace") if log.exists() else ""

    def wait_for(
        self,
        script: Path,
        text: str,
        process: subprocess.Popen[bytes],
        times: int = 1,
        seconds: float = 60,
    ) -> None:
        """Until a text stands in a script's log, so many times."""
        until = time.monotonic() + seconds
        while self.read_log(script).count(text) < times:
            ended = process.poll() is not None
            if ended or time.monotonic() > until:
                how = f"ended with {process.returncode}" if ended else f"ran {seconds:g} s"
                raise AssertionError(f"{script} {how} without {text!r}:\n{self.read_log(script)}")
            time.sleep(0.05)

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {
            MARK: self.mark,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "FEDPACT_POLL": "0.3",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        }


@contextmanager
def federation(
    *overrides: str,
    host: str = "localhost",
    echo: bool = False,
    keep: Path | None = None,
) -> Iterator[Federation]:
    """A deployment of a study, written and ready to be started; at the end every process of it is
    killed and its folder removed.

    Args:
        overrides: of the study.
        host: as firms reach the operator.
        echo: the app is tests/echo_app.py, which asks each node whose it is.
        keep: copy the folder there at the end, logs included.
    """
    config = config_of(*overrides)
    mark = uuid.uuid4().hex
    with ExitStack() as stack:
        # Not in pytest's own folder: a socket's path has 107 bytes at most.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fp-")))
        place = Place(str(home / "d"), host, free_ports(2 + len(config["parties"])))
        write_deployment(config, place)
        folder = Deployment(home / "d")
        if echo:
            shutil.rmtree(folder.operator.app)
            text = folder.study.read_text()
            apps = ("tests.echo_app:server", "tests.echo_app:client")
            write_bundle(folder.operator.app, text, *apps)
        if keep:
            stack.callback(shutil.copytree, folder.path, keep, ignore=_no_sockets)
        held = Federation(folder, place, mark)
        stack.callback(held.end)
        yield held


def descendants(process: int) -> list[int]:
    """All that a process started, and what that started."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            stat = (place / "stat").read_text()
            parents[int(place.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [process]
    for one in found:  # which grows
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nothing listens on now."""
    for first in range(20_000 + os.getpid() % 997 * 10, 60_000, count):
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
    raise AssertionError(f"no {count} free ports in a row")


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket() or name == "source"]
