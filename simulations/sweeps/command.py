"""A sweep from its configuration to the files in its folder and the last line on the screen."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from parties.exchange import FedpactError
from simulations.build import build, sha256
from simulations.provenance import origin
from simulations.results import RunFolder
from simulations.study import Study, study_of
from simulations.sweeps import Design
from simulations.sweeps.configs import APART, Configs
from simulations.sweeps.journal import Journal, unwritable
from simulations.sweeps.launch import Launch
from simulations.sweeps.record import record
from simulations.sweeps.run import Progress, Watch, hold_sweep
from simulations.tracking import Tracking

log = logging.getLogger("fedpact")

JOURNAL = "jobs.jsonl"
MOST_TRIED = 50  # values of an axis, each a study that is built


@final
@dataclass(frozen=True)
class Sweep:
    """A sweep, ready to be held.

    Args:
        name: of its studies.
        words: the overrides that its studies have in common.
        design, launch, tracking: which jobs, how, and where rows are mirrored.
        configs: their configurations.
        config: the whole configuration, resolved.
    """

    name: str
    words: Sequence[str]
    design: Design
    launch: Launch
    tracking: Tracking
    configs: Configs
    config: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The folder that the same command has every time."""
        return f"sweeps/{self.name}-{sha256(json.dumps(self._told, sort_keys=True))[:8]}"

    @property
    def identity(self) -> str:
        """What a folder holds: a sweep with more values on the same axes may go on in it."""
        told, sweep = self._told, self.config["sweep"]
        told["sweep"] = [sweep["_target_"], sorted(self.design.axes or {})]
        return sha256(json.dumps(told, sort_keys=True))

    @property
    def _told(self) -> dict[str, Any]:
        told = {k: v for k, v in self.config.items() if k not in APART or k == "sweep"}
        return told if self.launch.together else told | {"together": False}

    def failing(self) -> list[str]:
        """What is wrong with values of the axes, each tried by itself; of many the first."""
        first, told = dict(self.design.first()), []
        for axis in self.design.parsed:
            for value in axis.values[:MOST_TRIED]:
                point = first | {axis.key: value}
                try:
                    study_of(json.loads(self.configs.job(point).text))
                except FedpactError as fault:
                    told.append(f"{axis.key}={value}: {fault}")
        return told

    def study(self) -> Study:
        """The first of its studies.

        Raises:
            FedpactError: it is not legal.
        """
        return study_of(json.loads(self.configs.job(self.design.first()).text))


def sweep_of(config: DictConfig, overrides: Sequence[str]) -> Sweep:
    """A sweep from the configuration.

    Raises:
        FedpactError: a part of it is not legal.
    """
    whole: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for key in ("compare", "campaign"):
        if whole[key]:
            raise FedpactError(
                f"{key} is set, and so is sweep; a sweep holds single studies. Leave one of them "
                f"out: {key}=none or sweep=none."
            )
    engine = str(whole["engine"]["_target_"])
    if not engine.endswith(".Inline"):
        raise FedpactError(
            f"engine is {engine}; the jobs of a sweep are held whole, many at once, by its own "
            "workers. Leave engine at inline, and set launch.workers, launch.num_gpus or "
            "launch.address."
        )
    design, launch = build(whole["sweep"]), build(whole["launch"])
    tracking = build(whole["tracking"])
    assert isinstance(design, Design)
    assert isinstance(launch, Launch)
    assert isinstance(tracking, Tracking)
    words = [w for w in overrides if w.split("=")[0].lstrip("+~").split(".")[0] not in APART]
    axes = [axis.key for axis in design.parsed]
    for word in words:
        key = word.split("=")[0].lstrip("+~")
        if key in axes:
            raise FedpactError(
                f"{word} is fixed, and {key} is an axis of the sweep too. Leave one of them out."
            )
        if key in design.keys:
            raise FedpactError(
                f"{word} is fixed, and this sweep sets {key} itself: {design.words}. Leave it out."
            )
    configs = Configs(words, design.keys, "" if launch.together else "one by one")
    first = design.first()
    each = [{**first, a.key: value} for a in design.parsed for value in a.values]
    configs.check([first, *each])
    launch.pool().close()  # refuses workers that there is no room for; starts none
    return Sweep(str(whole["study"]["name"]), words, design, launch, tracking, configs, whole)


def plan_lines(sweep: Sweep) -> list[str]:
    """What a sweep would do."""
    most = sweep.design.most()
    study = sweep.study()
    sessions = len(study.contracts) * len(study.seeds)
    return [
        f"Sweep of {sweep.name}: {sweep.design.words}",
        *(f"  {json.dumps(axis.told())}" for axis in sweep.design.parsed),
        f"{'As many jobs as it takes' if most is None else f'{most} jobs at most'}, each one study "
        f"of {len(study.names)} firms; the first has {sessions} sessions",
        f"{sweep.launch.words}, {sweep.launch.batch} jobs at a time",
        *(f"Would fail: {told}" for told in sweep.failing()),
        "Nothing was trained. Run it without dry_run=true.",
    ]


def run_sweep(
    sweep: Sweep,
    folder: RunFolder,
    config: DictConfig,
    overrides: list[str],
    watching: AbstractContextManager[Watch],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Hold what is missing of a sweep in its folder, and write its table.

    Returns:
        The table and what sweep.json says.

    Raises:
        FedpactError: the folder is in use, holds something else, or cannot be written.
    """
    try:
        with folder.lock():
            return _run(sweep, folder, config, overrides, watching)
    except OSError as fault:
        raise unwritable(folder.path, fault) from fault


def _run(
    sweep: Sweep,
    folder: RunFolder,
    config: DictConfig,
    overrides: list[str],
    watching: AbstractContextManager[Watch],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    from simulations import terminal

    source = _begin(sweep, folder, config, overrides)
    terminal.set_up_logging(folder.path, config["progress"] == "auto")
    sweep.design.open(folder.path)
    sweep.tracking.start(sweep.name, folder.path)
    journal, progress, started = Journal(folder.path / JOURNAL), Progress(), time.monotonic()
    if journal.rows:
        log.info("going on with %s", folder.path)

    def recorded() -> tuple[pd.DataFrame, dict[str, Any]]:
        return record(sweep, folder, progress, source, time.monotonic() - started)

    try:
        with watching as watch:
            hold_sweep(sweep.design, sweep.launch, sweep.configs, journal, progress, watch)
    except KeyboardInterrupt as stop:
        progress.interrupted = True
        recorded()
        raise KeyboardInterrupt(
            f"stopped; {len(progress.held)} jobs are kept in {folder.path}, and the same command "
            "goes on with them"
        ) from stop
    finally:
        journal.close()
    table, facts = recorded()
    for row in table.to_dict("records"):
        sweep.tracking.row({str(name): value for name, value in row.items()})
    sweep.tracking.close(facts)
    return table, facts


def _begin(
    sweep: Sweep, folder: RunFolder, config: DictConfig, overrides: list[str]
) -> dict[str, Any]:
    """Make the folder, or take up what is in it; where the sweep comes from.

    Raises:
        FedpactError: it holds something else.
    """
    source = {"study": sweep.name, "sweep": sweep.identity, **origin(overrides)}
    names = ("provenance.json", "config.yaml")
    if any((folder.path / name).exists() for name in names):
        written = (folder.path / names[0]).exists()
        first = folder.read_json(names[0]) if written else {}
        if first.get("sweep") != sweep.identity:
            what = "another sweep" if "sweep" in first else "a run that is no sweep"
            raise FedpactError(
                f"{folder.path} holds {what}. A sweep goes on with more values of the same axes, "
                "and nothing else changed; choose another folder with run_dir=..."
            )
        source = {**first, "overrides": overrides, "resumed": [*first.get("resumed", []), source]}
    folder.write_json("provenance.json", source)
    folder.start(config, True, source)
    return source


def folder_of(config: Mapping[str, Any], sweep: Sweep) -> Path:
    """Where a sweep is filed: what the user says, or a place of its own."""
    return Path(str(config["resume"] or config["run_dir"] or sweep.place))
