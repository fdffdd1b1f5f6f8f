"""What an exchange with real nodes takes: SuperLink, nodes and desks on this machine, with TLS."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from hydra import compose, initialize_config_module

from parties.exchange import Enrol
from server.transport import Question, Transport
from simulations.bench.row import Row
from simulations.deploy.apart import EXCHANGES, apart_of
from simulations.deploy.bundle import write_bundle
from simulations.deploy.layout import Deployment
from simulations.deploy.trial import Trial, trial
from simulations.deploy.writing import Place, write_deployment
from simulations.engines import EngineError
from simulations.engines.config_keys import CONFIG, DIGEST, FOLDER
from simulations.engines.flower_run import free_port
from simulations.study import study_of

STUDY = (
    *("experiment=heart", "parties=two_hospitals", "study.seeds=4", "strategy.rounds=5"),
    "progress=none",
)
NO_OPS = 5
server = ServerApp()


@server.main()
def no_ops(grid: Grid, context: Context) -> None:
    """Ask every firm the same again: its desk knows the answer and trains nothing."""
    study = study_of(json.loads(str(context.run_config[CONFIG])), away=True)
    digest = str(context.run_config[DIGEST])
    apart = apart_of(Path(str(context.run_config[FOLDER])), digest)
    way = Transport(grid, study.names, study.limits, apart=apart)
    way.enrol(study.seeds[0])
    for _ in range(NO_OPS):
        way.ask_all([Question(dict.fromkeys(study.names, Enrol(study.seeds[0], digest)))])


@final
@dataclass(frozen=True)
class Exchanges:
    """What some exchanges took: questions of one to all firms, seconds of each."""

    what: str
    questions: int
    seconds: tuple[float, ...]

    @property
    def line(self) -> str:
        """One line of the table."""
        took = sorted(self.seconds)
        return (
            f"{self.what:24} {self.questions:9}  {statistics.median(took):6.1f}  "
            f"[{took[0]:.1f} to {took[-1]:.1f}]  of {len(took)}"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def rows(chosen: argparse.Namespace) -> list[Row]:
    """A row a kind of exchange, printed."""
    firms, found = exchanges()
    what = f"{firms} nodes and the operator on this machine, TLS, node keys, signed models"
    print(what)
    print("exchange                 questions  seconds of each")
    for one in found:
        print(one.line)
    return [
        Row(what, f"{one.what}, {one.questions} questions a firm", one.seconds, "s")
        for one in found
    ]


def exchanges(study: Sequence[str] = STUDY) -> tuple[int, list[Exchanges]]:
    """How many firms there were, and what exchanges with them took."""
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", list(study))
    with tempfile.TemporaryDirectory(prefix="fp-") as home:
        folder = Deployment(Path(home) / "d")
        write_deployment(config, Place(str(folder.path), port=free_port()))
        firms = sorted(config["parties"])
        with trial(folder) as held:
            held.start_superlink()
            held.register()
            held.start_desks(*firms)
            for firm in firms:
                held.start_node(firm)
            found = [*_no_ops(held), *_study(held)]
    return len(firms), found


def _no_ops(held: Trial) -> list[Exchanges]:
    """Exchanges in which nobody computes anything."""
    operator, text = held.folder.operator, held.folder.study.read_text(encoding="utf-8")
    shutil.rmtree(operator.app)
    write_bundle(operator.app, text, server=f"{__name__}:server")
    rows = _held(held, "--no-verdict", "--again", "0")
    shutil.rmtree(operator.app)
    write_bundle(operator.app, text)
    shutil.rmtree(operator.results)
    return [Exchanges("no-op", 1, tuple(float(row["seconds"]) for row in rows[1:]))]


def _study(held: Trial) -> list[Exchanges]:
    """The exchanges of a whole study, by what is asked."""
    rows = _held(held)
    firms = int(rows[0]["firms"])
    kinds = {"Offer": "round of training", "Measure": "measure"}
    found = []
    for kind, what in kinds.items():
        some = [row for row in rows if kind in row["kinds"].split()]
        most = max(int(row["questions"]) for row in some) // firms
        found.append(Exchanges(what, most, tuple(float(row["seconds"]) for row in some)))
    return found


def _held(held: Trial, *words: str) -> list[dict[str, str]]:
    run = held.folder.operator.path / "run.sh"
    done = held.call(run, "--poll", "2", *words, timeout=900)
    if done.returncode:
        raise EngineError(f"{run} ended with {done.returncode}: {done.stderr[-2000:]}")
    with (held.folder.operator.results / EXCHANGES).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
