"""A real federation on this machine: a SuperLink and SuperNodes, started by the scripts of a
deployment's folder, with TLS and node authentication. Nothing of it is left afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from omegaconf import DictConfig

from simulations.deploy.bundle import write_bundle
from simulations.deploy.layout import Deployment
from simulations.deploy.trial import Trial, trial
from simulations.deploy.writing import Place, write_deployment
from tests.checks import config_of

ROOT = Path(__file__).resolve().parents[1]


@final
@dataclass(frozen=True)
class Federation:
    """A deployment's processes, and where its operator is reached."""

    trial: Trial
    place: Place

    @property
    def folder(self) -> Deployment:
        return self.trial.folder

    def run(
        self, timeout: float, *words: str, within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Hold the study, as run.sh does."""
        script = self.folder.operator.path / "run.sh"
        return self.trial.call(script, "--poll", "1", *words, timeout=timeout, within=within)


@contextmanager
def federation(
    *overrides: str,
    host: str = "localhost",
    echo: bool = False,
    keep: Path | None = None,
    change: Callable[[DictConfig], None] = lambda config: None,
) -> Iterator[Federation]:
    """A deployment of a study, written and ready to be started; at the end every process of it is
    killed and its folder removed.

    Args:
        overrides: of the study.
        host: as firms reach the operator.
        echo: the app is tests/echo_app.py, which asks each node whose it is.
        keep: copy the folder there at the end, logs included.
        change: of the study, where overrides do not do.
    """
    config = config_of(*overrides)
    change(config)
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
        yield Federation(stack.enter_context(trial(folder)), place)


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
