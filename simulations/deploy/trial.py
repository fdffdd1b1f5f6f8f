"""`python -m simulations.deploy trial`: a whole deployment on this machine, by its own scripts.

Operator and firms are processes of their own, with TLS, keys and logs, as they would be on machines
of their own. Nothing runs any more when it ends.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

from parties.exchange import FedpactError
from simulations.deploy.layout import Deployment
from simulations.engines import EngineError
from simulations.engines.flower_run import MARK
from simulations.engines.marked import stop_marked

if TYPE_CHECKING:
    from simulations.deploy.writing import Place

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


@final
class Trial:
    """The processes of one deployment, all on this machine.

    Args:
        folder: as `python -m simulations.deploy` writes it.
    """

    def __init__(self, folder: Deployment) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex  # in its processes' environment: by it they are found
        self._started: list[subprocess.Popen[bytes]] = []

    def log(self, script: Path) -> Path:
        """Where a script that was started writes: superlink.log, supernode.log, desk.out."""
        return script.with_suffix(".out" if script.stem == "desk" else ".log")

    def read_log(self, script: Path) -> str:
        """What a started script has written so far."""
        log = self.log(script)
        return log.read_text(errors="replace") if log.exists() else ""

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
                env=self.environment | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def call(
        self, script: Path, *words: str, timeout: float = 60, within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        return subprocess.run(
            [*within, str(script), *words],
            env=self.environment,
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
        """Every firm's node becomes known.

        Raises:
            EngineError: a key was not taken.
        """
        script = self.folder.operator.path / "register.sh"
        done = self.call(script, within=within, timeout=600)
        if done.returncode:
            raise EngineError(f"{script} ended with {done.returncode}: {done.stderr}")

    def start_desks(self, *firms: str) -> dict[str, subprocess.Popen[bytes]]:
        """Firms' desks, once they answer."""
        scripts = {firm: self.folder.firm(firm).path / "desk.sh" for firm in firms}
        seen = {firm: self.read_log(script).count("answers at") for firm, script in scripts.items()}
        started = {firm: self.start(script) for firm, script in scripts.items()}
        for firm, process in started.items():
            seconds = START_S + 10 * len(firms)
            self.wait_for(scripts[firm], "answers at", process, seen[firm] + 1, seconds)
        return started

    def start_node(
        self, firm: str, within: Sequence[str] = (), **more: str
    ) -> subprocess.Popen[bytes]:
        """A firm's SuperNode; it connects by itself."""
        return self.start(self.folder.firm(firm).path / "supernode.sh", within, **more)

    def wait_for(
        self,
        script: Path,
        text: str,
        process: subprocess.Popen[bytes],
        times: int = 1,
        seconds: float = START_S,
    ) -> None:
        """Until a text stands in a script's log, so many times.

        Raises:
            EngineError: the process has ended, or the time is over.
        """
        until = time.monotonic() + seconds
        while self.read_log(script).count(text) < times:
            ended = process.poll() is not None
            if ended or time.monotonic() > until:
                how = f"ended with {process.returncode}" if ended else f"ran {seconds:g} s"
                log = self.read_log(script)[-3000:]
                raise EngineError(f"{script} {how} without {text!r}. Its log ends:\n{log}")
            time.sleep(0.05)

    def end(self) -> None:
        """Kill whatever of it still runs."""
        stop_marked(f"{MARK}={self.mark}".encode())
        for process in self._started:
            process.wait(10)

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes: they run this Fedpact, and carry the mark."""
        return os.environ | {MARK: self.mark, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}


@contextmanager
def trial(folder: Deployment) -> Iterator[Trial]:
    """Processes of a deployment, all of which are gone afterwards."""
    held = Trial(folder)
    try:
        yield held
    finally:
        held.end()


def main(arguments: Sequence[str]) -> int:
    """Write a deployment, or take the one that is there; start everything; hold the study."""
    from simulations.deploy.writing import digest_of, place_of, write

    if not arguments or {"-h", "--help"} & {*arguments}:
        sys.stdout.write(
            "python -m simulations.deploy trial out=FOLDER [experiment=NAME ...]\n\n"
            f"{(__doc__ or '').partition(chr(10))[2].strip()}\n"
            "A folder that is there is taken as it is, and goes on where it was.\n"
        )
        return 0
    place, overrides = place_of(arguments)
    out = Path(place.out)
    if not out.exists():
        write(arguments)
    elif overrides and digest_of(overrides) != Deployment(out).digest.read_text().split()[0]:
        raise FedpactError(
            f"out is {place.out}, which exists, and holds another study. To go on with that one: "
            f"python -m simulations.deploy trial out={place.out}; for this one name another folder."
        )
    folder = Deployment(out.resolve())
    if not folder.study.is_file():
        raise FedpactError(f"{out} holds no deployment. Name another folder: out=...")
    _check_place(folder, place, arguments)
    firms = sorted(path.name for path in (folder.path / "firms").iterdir())
    with trial(folder) as held:
        try:
            _say(f"operator  {held.log(folder.operator.path / 'superlink.sh')}")
            held.start_superlink()
            held.register()
            held.start_desks(*firms)
            for firm in firms:
                held.start_node(firm)
                _say(f"{firm:9} {held.log(folder.firm(firm).path / 'supernode.sh')}, desk.out")
            run = folder.operator.path / "run.sh"
            return subprocess.run([str(run), "--poll", "2"], env=held.environment).returncode
        except KeyboardInterrupt:
            words = (sys.executable, "-m", "simulations.deploy", "trial", f"out={place.out}")
            _say(f"stopping; to go on: {shlex.join(words)}")
            return 130
        finally:
            for part in (*(folder.firm(firm).path for firm in firms), folder.operator.path):
                held.call(part / "stop.sh")


def _check_place(folder: Deployment, place: Place, words: Sequence[str]) -> None:
    """A folder that is there keeps its host, port and days: keys and pages have them."""
    there = json.loads(folder.place.read_text())
    named = {word.partition("=")[0] for word in words}
    asked = {key: value for key, value in place.said().items() if key in named}
    other = [key for key, value in asked.items() if there[key] != value]
    if other:
        raise FedpactError(
            f"{', '.join(f'{key} is {asked[key]}' for key in other)}, and out={place.out} was "
            f"written with {' '.join(f'{key}={there[key]}' for key in other)}; legal is the same. "
            f"Leave {' and '.join(other)} out to go on with it, or name another folder: out=..."
        )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
