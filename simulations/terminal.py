"""What a person reads: progress, the plan, the verdict table."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from server.verdict import interval_name
from simulations.compare import Plan, interval_names
from simulations.prices import price_lines
from simulations.privacy import noise_lines
from simulations.results import RunFolder
from simulations.study import Study
from simulations.sweeps.columns import answers, axes_of, holds
from simulations.sweeps.noise import borne
from simulations.sweeps.run import Watch
from simulations.sweeps.table import cut_off
from simulations.traffic import bytes_of, traffic

STYLE = {"signs": "bold green", "refuses": "bold red", "undecided": "yellow"}
EVERY_S = 10.0  # between lines on a sweep
MOST_FAILURES = 5
MARK = {True: "yes", False: "no", None: "undecided"}


log = logging.getLogger("fedpact")


def set_up_logging(folder: Path | None, progress: bool) -> logging.Logger:
    """Log to run.log (with times) and, as plain lines, to the terminal's stderr."""
    logger = logging.getLogger("fedpact")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if folder is not None:
        file = logging.FileHandler(folder / "run.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
    if progress and sys.stderr.isatty():
        console = RichHandler(
            logging.WARNING, Console(stderr=True), show_time=False, show_path=False
        )
        logger.addHandler(console)
    elif progress:
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(lines)
    return logger


@final
class _Bar(Progress):
    """A bar that counts the finished sessions of a run folder: any engine fills it."""

    folder: RunFolder
    task: TaskID

    def get_renderables(self) -> Iterable[RenderableType]:
        if hasattr(self, "task"):
            held = len(self.folder.held())
            self.update(self.task, completed=held, description=_latest(self.folder))
        return super().get_renderables()


@contextmanager
def watching(folder: RunFolder, sessions: int, firms: int, shown: bool) -> Iterator[None]:
    """A progress bar over the run's sessions on a terminal; elsewhere the log lines tell."""
    if not (shown and sys.stderr.isatty()):
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"sessions of {firms} firms"),
        TimeElapsedColumn(),
    )
    with _Bar(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        bar.folder = folder
        bar.task = bar.add_task("starting", total=sessions)
        yield


def _latest(folder: RunFolder) -> str:
    """Where the run is: seed, contract and round of the last line of rounds.csv."""
    try:
        with (folder.path / "rounds.csv").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 400))
            last = file.read().decode().strip().splitlines()[-1].split(",")
        return f"seed {int(last[0])} · {last[1]} · round {int(last[2]) + 1}"
    except (OSError, IndexError, ValueError):
        return "starting"


def print_plan(study: Study, plan: Sequence[str], as_json: bool) -> None:
    """What a run would do: firms, parameters, messages and bytes a round, actors and shares."""
    console = _console()
    declared = study.declarations()
    if as_json:
        firms = {name: dataclasses.asdict(d) for name, d in declared.items()}
        lines = plan_lines(study, plan)
        print(json.dumps({"study": study.name, "firms": firms, "plan": lines}, indent=2))
        return
    table = Table(
        title=f"Study {study.name}: {len(study.contracts)} contracts x {len(study.seeds)} seeds",
        title_justify="left",
    )
    for column in ("firm", "backbone", "parameters", "training examples", "kB a model"):
        table.add_column(column, justify="left" if column in ("firm", "backbone") else "right")
    for name, d in declared.items():
        sizes = [int(np.prod(shape)) for shape in d.tensors.values()]
        table.add_row(
            name,
            type(study.firms[name].backbone).__name__,
            f"{sum(sizes):,}",
            f"{d.examples:,}",
            f"{4 * sum(sizes) / 1e3:,.1f}",
        )
    console.print(table)
    for line in plan_lines(study, plan):
        console.print(line)
    console.print("Nothing was trained. Run it without dry_run=true.")


def plan_lines(study: Study, plan: Sequence[str]) -> list[str]:
    """The plan's figures in words, the engine's plan last."""
    declared = study.declarations()
    lines = []
    for contract in study.contracts.values():
        terms = contract.terms(study.strategy.rounds)
        epochs = study.strategy.local_epochs if terms.models else 0
        sent = traffic(terms, epochs, declared, study.strategy.combines)
        down, up = bytes_of(sent)
        asked = 1 + study.market.contested
        asked += terms.predictions and study.market.clients != "own"
        rounds = max(terms.rounds, 1)
        lines.append(
            f"{contract.name}: {rounds} training round(s) of {2 * len(sent)} messages, "
            f"about {down:,} bytes down and {up:,} up a round; then {asked} question(s) a firm"
        )
    sessions = len(study.contracts) * len(study.seeds)
    lines.append(f"{sessions} sessions in all")
    return [*lines, *plan]


def print_verdict(
    verdict: Mapping[str, Any], folder: RunFolder, seconds: float, deployed: bool = False
) -> None:
    """The verdict table, where the report is, and (of a simulation) the next command."""
    console = _console()
    console.print(_verdict_table(verdict, wide=console.width >= 96))
    console.print(_contract_table(verdict))
    console.print(
        f"Payoffs in {verdict['unit']}. Gains over no_sharing, paired over clients and seeds."
    )
    told = (price_lines, noise_lines, payment_lines, score_lines)
    for line in (line for lines in told for line in lines(verdict)):
        console.print(line, soft_wrap=True)
    console.print(f"CPU      {seconds:.1f} s in this process")
    console.print(f"Models   sha256 {verdict['models_sha256']}")
    console.print(f"Report   {folder.path / 'report.html'}", soft_wrap=True)
    game = (folder.path / "game.json").exists()
    change = "market.C1=5" if game else "experiment=heart training.weight_decay=0.01"
    if game:
        console.print(f"Why      python -m simulations.game explain {folder.path}", soft_wrap=True)
    if not deployed:
        console.print(f"Next     fedpact {change}      (every key: fedpact --cfg job)")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 110, highlight=False)


def _verdict_table(verdict: Mapping[str, Any], wide: bool) -> Table:
    """A row a contract and firm; on a narrow terminal without "predicted" and "needed"."""
    table = Table(
        title=f"Would every firm sign? Study {verdict['study']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    left = ("contract", "firm", "decision")
    level = interval_name(verdict["interval"])
    columns = ["contract", "firm", "decision", "gain", level, "payoff"]
    for column in [*columns, "predicted", "needed"] if wide else columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    for name, contract in verdict["contracts"].items():
        rows = list(contract["firms"].items())
        for place, (firm, v) in enumerate(rows):
            decided = f"[{STYLE[v['decision']]}]{v['decision']}[/]"
            cells = [name if place == 0 else "", firm, decided, _number(v["gain"], sign=True)]
            cells += [_interval(v["interval"]), _number(v["payoff"])]
            if wide:
                needed = "" if v["needed"] is None else f"{v['needed']:,}"
                cells += [_number(v["predicted"]), needed]
            table.add_row(*cells, end_section=place == len(rows) - 1)
    return table


def _contract_table(verdict: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("contract", "individually rational", "Pareto-optimal", "IRPO"):
        table.add_column(column, no_wrap=True)
    for name, contract in verdict["contracts"].items():
        keys = ("individually_rational", "pareto_optimal", "irpo")
        table.add_row(name, *(MARK[contract[key]] for key in keys))
    return table


def payment_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The side payments that would make a contract rational that is not surely so."""
    lines: dict[str, list[str]] = {}
    for name, contract in verdict["contracts"].items():
        transfer = contract["transfer"]
        if contract["individually_rational"] or transfer is None:
            continue
        besides = ", besides its price" if "price" in contract else ""
        if not transfer["exists"]:
            text = "by the mean gains no side payment leaves both as well off as alone"
            lines.setdefault(text, []).append(name)
            continue
        low, high = transfer["interval"]
        if low <= 0 <= high:
            continue  # by the mean gains none is needed
        payer, payee = transfer["payer"], transfer["payee"]
        if low < 0:
            payer, payee, low, high = payee, payer, -high, -low
        text = f"by the mean gains {payer} could pay {payee} {low:.4f} to {high:.4f} a client"
        text += besides
        lines.setdefault(text, []).append(name)
    return [f"{' and '.join(names)}: {text}." for text, names in lines.items()]


def score_lines(verdict: Mapping[str, Any]) -> list[str]:
    """How good the models are, from the richest contract that was held."""
    for contract in ("full_sharing", "infer_sharing"):
        scores = verdict["scores"].get(contract, {})
        auc = {k.split(".", 1)[1]: v for k, v in scores.items() if k.startswith("auc_contested.")}
        if auc:
            text = ", ".join(f"{name} {value:.4f}" for name, value in auc.items())
            return [f"AUC on contested clients: {text}"]
    return []


def print_lines(lines: Iterable[str]) -> None:
    """Lines as they are, also wide ones."""
    for line in lines:
        print(line)


def print_comparison_plan(plan: Plan) -> None:
    """Which studies a comparison would hold."""
    for setting, method, words in plan.cells:
        print(f"{setting}/{method}: {' '.join(words)}")
    print("Nothing was trained. Run it without dry_run=true.")


def print_comparison(plan: Plan, table: pd.DataFrame, folder: RunFolder) -> None:
    """A row a setting and method, and where the tables and the picture are."""
    console = _console()
    console.print(_measures_table(plan, table) if plan.watch else _gains_table(plan, table, folder))
    console.print(f"Report   {folder.path / 'report.html'}", soft_wrap=True)
    console.print(f"Table    {folder.path / ('compare.csv' if plan.watch else 'compare.json')}")


def _measures_table(plan: Plan, table: pd.DataFrame) -> Table:
    shown = Table(
        title=f"Mean of the last {plan.last} rounds, difference to {plan.reference} with its 95 % "
        "interval over paired seeds, accuracy after the last round, accuracy lost a round",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("setting", "method", "accuracy %", "difference", "final %", "lost"):
        shown.add_column(column, justify="left" if column in ("setting", "method") else "right")
    before = ""
    for row in table.to_dict("records"):
        base = row["method"] == plan.reference
        low, high = (row["last_difference"] + sign * row["last_half_width"] for sign in (-1, 1))
        shown.add_row(
            "" if row["setting"] == before else row["setting"],
            row["method"],
            f"{row['last']:.1f}",
            "" if base else f"{row['last_difference']:+.1f}{_ends(low, high)}",
            f"{row['final']:.1f}"
            + ("" if math.isnan(row["final_sd"]) else f" ± {row['final_sd']:.1f}"),
            f"{row['forgetting']:.1f}",
        )
        before = row["setting"]
    return shown


def _ends(low: float, high: float) -> str:
    """An interval of points; nothing where one seed has none."""
    return "" if math.isnan(low) else rf" \[{low:+.1f}, {high:+.1f}]"


def _gains_table(plan: Plan, table: pd.DataFrame, folder: RunFolder) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    level = interval_names(plan, folder.path)
    names = ("setting", "firm", "method", "own", "payoff", "gain", level, "decision")
    for column in names:
        left = column in ("setting", "firm", "method", "decision")
        shown.add_column(column, justify="left" if left else "right")
    rows = table.sort_values(["setting", "firm"], kind="stable").to_dict("records")
    before: tuple[str, str] = ("", "")
    for row in rows:
        here = (row["setting"], row["firm"])
        shown.add_row(
            *(here if here != before else ("", "")),
            row["method"],
            _number(row["own"]),
            _number(row["payoff"]),
            _number(row["gain"], sign=True),
            _interval([row["low"], row["high"]]),
            f"[{STYLE[row['decision']]}]{row['decision']}[/]",
        )
        before = here
    return shown


@final
class _Jobs:
    """How far a sweep is, as a bar on a terminal or as lines elsewhere (`sweeps.run.Watch`)."""

    def __init__(self, bar: Progress | None, shown: bool) -> None:
        self._bar, self._shown = bar, shown
        self._task = None if bar is None else bar.add_task("starting", total=None)
        self._jobs = self._done = self._failed = self._new = 0
        self._began = self._told = time.monotonic()

    def asked(self, jobs: int, done: int) -> None:
        self._jobs, self._done = jobs, done
        if done and not self._new and self._shown and self._bar is None:
            log.info("%d of %d jobs are on file", done, jobs)
        self._draw()

    def held(self, row: Mapping[str, Any]) -> None:
        self._done += 1
        self._new += 1
        self._failed += row["status"] == "failed"
        self._draw()
        now = time.monotonic()
        if self._bar is None and self._shown and now - self._told > EVERY_S:
            self._told = now
            left = (now - self._began) / self._new * (self._jobs - self._done)
            log.info(
                "%d of %d jobs, %d failed, about %.0f s left",
                *(self._done, self._jobs, self._failed, left),
            )

    def _draw(self) -> None:
        if self._bar is not None and self._task is not None:
            words = f"jobs, {self._failed} failed" if self._failed else "jobs"
            self._bar.update(self._task, completed=self._done, total=self._jobs, description=words)


@contextmanager
def counting_jobs(shown: bool) -> Iterator[Watch]:
    """A bar with the time left over a sweep's jobs on a terminal; elsewhere a line at times."""
    if not (shown and sys.stderr.isatty()):
        yield _Jobs(None, shown)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        yield _Jobs(bar, shown)


def print_sweep(table: pd.DataFrame, facts: Mapping[str, Any], folder: RunFolder) -> None:
    """Which contract wins in how many studies, what failed, and where the tables are."""
    console = _console()
    counts = facts["counts"]
    console.print(
        f"{counts['jobs']} studies of {facts['name']} ({facts['design']}): {counts['ok']} held, "
        f"{counts['failed']} failed, {counts['undecided']} undecided",
        soft_wrap=True,
    )
    ok = table[table["status"] == "ok"]
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = ["contract", "all sign", "some refuse", "undecided", "best", "mean joint surplus"]
    held = {name: holds(ok, name) for name in facts["contracts"] if f"{name}.signed" in ok}
    partly = not all(mask.all() for mask in held.values())
    if partly:
        columns.append("not held")
    for column in columns:
        shown.add_column(column, justify="left" if column == "contract" else "right")
    for name in facts["contracts"]:
        best = int((ok["best"] == name).sum())
        if name not in held:
            shown.add_row(name, "", "", "", str(best), "")
            continue
        signed = answers(ok[f"{name}.signed"])[held[name]]
        numbers = [(signed == 1).sum(), (signed == 0).sum(), np.isnan(signed).sum()]
        surplus = _number(float(ok[f"{name}.surplus"].mean()), sign=True)
        lacking = [str((~held[name]).sum())] if partly else []
        shown.add_row(name, *map(str, numbers), str(best), surplus, *lacking)
    if len(ok):
        console.print(shown)
    for name, found in facts["agreement"].items():
        if found["compared"]:
            console.print(
                f"{name}: the exact game on the measured joint table says the same in "
                f"{found['agree']} of {found['compared']} decided studies",
                soft_wrap=True,
            )
    for line in borne(table, axes_of(table, facts)):
        console.print(f"Noise    {line}", soft_wrap=True, markup=False)
    if told := facts["extra"].get("told"):
        console.print(f"Found    {told}", soft_wrap=True, markup=False)
    failed = table[table["status"] == "failed"]
    for row in failed.head(MOST_FAILURES).to_dict("records"):
        told = f"failed   job {row['job']}: {row['error']}: {row['message']}"
        console.print(told, soft_wrap=True, markup=False)
    if len(failed) > MOST_FAILURES:
        console.print(f"         and {len(failed) - MOST_FAILURES} more (sweep.csv)")
    if why := cut_off(facts):
        console.print(why, soft_wrap=True)
    console.print(f"Report   {folder.path / 'sweep.html'}", soft_wrap=True)
    console.print(f"Table    {folder.path / 'sweep.parquet'}", soft_wrap=True)
    console.print(f"sha256   {facts['sha256']} (sweep.csv)", soft_wrap=True)


def print_json(folder: RunFolder, name: str) -> None:
    """A JSON file of the run as it is on disk."""
    print((folder.path / name).read_text(), end="", flush=True)


def print_folder(path: Path) -> None:
    """The last line of stdout: where everything is."""
    print(path, flush=True)


def _number(value: float | None, sign: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if sign else ''}.4f}"


def _interval(pair: list[float | None]) -> str:
    return (
        ""
        if pair[0] is None or pair[1] is None
        else f"[{pair[0]:+.4f}, {pair[1]:+.4f}]".replace("[", r"\[")
    )
