"""`python -m simulations.deploy operate`: hold the study with firms on machines of their own.

The operator hands the app to the SuperLink, follows the run, hands it in again where the SuperLink
or the app was killed (it goes on from its checkpoint), and judges what came of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from omegaconf import OmegaConf

from parties.exchange import FedpactError
from simulations.build import sha256
from simulations.deploy.apart import exchange_lines, exchanges
from simulations.deploy.layout import OperatorFolder, find_operator, read_study
from simulations.engines import EngineError
from simulations.engines.config_keys import FOLDER
from simulations.engines.deployed import ENDED
from simulations.results import RunFolder
from simulations.study import Study, study_of

log = logging.getLogger("fedpact")

NUMBER = "run-number.txt"
COMPLETED, UNKNOWN = "finished:completed", "not known: the SuperLink does not answer"
CONNECTION = "fedpact"  # in FLWR_HOME/config.toml
CALL_S = 60.0
AWAY_S = 1800.0  # how long a SuperLink that does not answer is waited for
LOOK, LONGEST_LOOK_S = 0.03, 10.0  # share of its time that a run is not looked at; seconds


def main(arguments: Sequence[str]) -> int:
    """Hold the study to its verdict; an exit status of 130 where a person ended the watching."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.deploy operate",
        description="Hold the study with the firms whose nodes are connected, and judge it.",
    )
    parser.add_argument("--folder", type=Path, help="the operator's (default: it is looked for)")
    parser.add_argument(
        "--again", type=int, default=20, help="how often to hand in a run that was killed (20)"
    )
    parser.add_argument(
        "--wait", type=float, default=300.0, help="seconds to wait for the SuperLink (300)"
    )
    parser.add_argument(
        "--no-verdict", action="store_true", help="hold the run only: the app in app/ is another"
    )
    parser.add_argument("--poll", type=float, default=5.0, help="seconds between two looks (5)")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    chosen = parser.parse_args(arguments)
    operator = find_operator(chosen.folder)
    study, folder = opened(operator)
    started = time.process_time()
    try:
        Runs(operator, folder, chosen.again, chosen.poll, chosen.wait).hold()
    except KeyboardInterrupt:
        sys.stderr.write(
            "fedpact: no longer followed; the run goes on. ./run.sh follows it again\n"
        )
        return 130
    if chosen.no_verdict:
        return 0
    verdict = concluded(study, folder)
    _print(verdict, folder, chosen.format, time.process_time() - started)
    return 0


def opened(operator: OperatorFolder) -> tuple[Study, RunFolder]:
    """The study of a deployment, and the folder of its results, made ready.

    Raises:
        FedpactError: study.json is not what its sha256 says, or the folder holds another study.
    """
    from simulations import terminal
    from simulations.provenance import provenance

    text, promised = read_study(operator)
    if sha256(text) != promised:
        raise FedpactError(
            f"{operator.study} has the sha256 {sha256(text)}, agreed is {promised}. Put the agreed "
            "one back, or write a new deployment."
        )
    study = study_of(json.loads(text), away=True)
    folder = RunFolder(operator.results)
    config, saved = OmegaConf.create(json.loads(text)), folder.path / "config.yaml"
    if saved.exists() and OmegaConf.load(saved) != config:
        raise FedpactError(
            f"{saved} is of another study. Move {folder.path} away, and hold this one anew."
        )
    if not saved.exists():
        origin = {**provenance(study, "Deployment", []), "command": ["./run.sh"]}
        folder.start(config, False, {**origin, "study_sha256": promised})
    terminal.set_up_logging(folder.path, True)
    return study, folder


def concluded(study: Study, folder: RunFolder) -> dict[str, Any]:
    """The verdict and the report, as of any other run."""
    from simulations.conclude import conclude
    from simulations.provenance import now
    from simulations.report import write_report

    verdict = conclude(study, folder)
    origin = folder.read_json("provenance.json")
    folder.write_json("provenance.json", {**origin, "finished": now()})
    write_report(study, folder, verdict)
    return verdict


@final
class Runs:
    """Flower runs of one study: one, and another each time that one was killed.

    Args:
        operator: whose FLWR_HOME (in the environment) says where the SuperLink is.
        folder: of the results; sessions and rounds that are on file are not held again.
        again: how often a run is handed in again.
        poll_s: between two looks at it, at first.
        wait_s: for a SuperLink that takes no run.
    """

    def __init__(
        self,
        operator: OperatorFolder,
        folder: RunFolder,
        again: int,
        poll_s: float,
        wait_s: float,
    ) -> None:
        self._operator, self._folder = operator, folder
        self._again, self._poll_s, self._wait_s = again, poll_s, wait_s
        self._said = len(exchanges(folder.path))

    def hold(self) -> None:
        """Hand the study in until a run of it is completed.

        Raises:
            FedpactError: the study itself cannot be held, with what its app said.
            EngineError: runs ended again and again.
        """
        ended = self._folder.path / ENDED
        for attempt in range(self._again + 1):
            number = self._going_on() if attempt == 0 else ""
            if number:
                log.info("run %s: still going on", number)
            else:
                ended.unlink(missing_ok=True)
                number = self._hand_in()
                (self._folder.path / NUMBER).write_text(f"{number}\n", encoding="utf-8")
                log.info(
                    "run %s: handed in (%d of at most %d)", number, attempt + 1, self._again + 1
                )
            status = self._follow(number)
            if status == COMPLETED:
                return
            if ended.exists():  # the app itself gave up, and says why
                raise FedpactError(ended.read_text(encoding="utf-8").strip())
            log.warning("run %s ended as %s; it is handed in again", number, status)
        raise EngineError(
            f"{self._again + 1} runs ended without a verdict. superlink.log says why. What was "
            "finished is kept: mend that, and run the same command again."
        )

    def _say_how_far(self) -> None:
        """A line for every exchange with the firms that was new."""
        lines = exchanges(self._folder.path)
        for number, row in enumerate(lines[self._said :], self._said + 1):
            log.info(
                "exchange %d: %s questions (%s), %s of %s firms answered, %.1f s",
                *(number, row["questions"], row["kinds"], row["answered"], row["firms"]),
                float(row["seconds"]),
            )
        self._said = len(lines)

    def _going_on(self) -> str:
        """The number of a run that was handed in before and has not ended, or ""."""
        try:
            number = (self._folder.path / NUMBER).read_text(encoding="utf-8").strip()
        except OSError:
            return ""
        status = _status(number)
        return number if status and not status.startswith("finished") else ""

    def _hand_in(self) -> str:
        """The number of a new run; a SuperLink that is being started is waited for."""
        words = ("run", str(self._operator.app), CONNECTION, "--format", "json")
        where = f"{FOLDER}='{self._folder.path.resolve()}'"
        deadline = time.monotonic() + self._wait_s
        while True:
            said = _flwr(*words, "--run-config", where)
            found = re.search(r'"run-id": *"?(\d+)', said)
            if found:
                return found[1]
            if time.monotonic() > deadline:
                raise EngineError(
                    f"The SuperLink takes no run: {said.strip()[-800:]}\nStart superlink.sh, or "
                    "look into superlink.log."
                )
            time.sleep(self._poll_s)

    def _follow(self, number: str) -> str:
        """How a run ended. A SuperLink that was killed marks it failed when it is back."""
        last, heard = "", time.monotonic()
        begun = heard
        while True:
            found = _status(number)
            status = found or UNKNOWN
            self._say_how_far()
            if status != last:
                log.info("run %s: %s", number, status)
            if status.startswith("finished"):
                return status
            if found:
                heard = time.monotonic()
            elif time.monotonic() - heard > AWAY_S:
                raise EngineError(
                    f"The SuperLink has not answered for {AWAY_S:g} s. Start superlink.sh, and run "
                    "the same command again: it goes on."
                )
            last = status
            # A look costs a second of CPU, which where all is on one machine the nodes want.
            long = LOOK * (time.monotonic() - begun)
            time.sleep(max(self._poll_s, min(long, LONGEST_LOOK_S)))


def _status(number: str) -> str:
    """Of a run; "" where the SuperLink does not answer, or knows no such run."""
    said = _flwr("ls", CONNECTION, "--run-id", number, "--format", "json")
    found = re.search(r'"status": *"([^"]+)"', said)
    return found[1] if found else ""


def _flwr(*words: str) -> str:
    """What Flower's command prints, whatever its exit status (it is 0 for failed runs too)."""
    command = [str(Path(sys.executable).parent / "flwr"), *words]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"`flwr {words[0]}` did not end within {CALL_S:g} s"
    return done.stdout + done.stderr


def _print(verdict: dict[str, Any], folder: RunFolder, form: str, spent: float) -> None:
    from simulations import terminal

    if form == "json":
        terminal.print_json(folder, "verdict.json")
    else:
        terminal.print_verdict(verdict, folder, spent, deployed=True)
        terminal.print_lines(exchange_lines(folder.path))
    terminal.print_folder(folder.path.resolve())
