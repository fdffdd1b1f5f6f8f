"""Trackers: a mirror of rows that are already on disk, for people who browse runs elsewhere."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np

from parties.exchange import FedpactError
from parties.files import digest
from simulations.sweeps.columns import label

BATCH = 500  # metrics that a store takes at once


class Tracking(ABC):
    """Mirrors the rows of a sweep's table, as they come."""

    @abstractmethod
    def start(self, name: str, folder: Path) -> None:
        """Open the mirror of the sweep of this name, whose tables lie in the folder.

        Raises:
            FedpactError: the mirror cannot be opened.
        """

    @abstractmethod
    def row(self, row: Mapping[str, Any]) -> None:
        """Mirror one row: columns and values, in the order of the table.

        A row that was mirrored before, by this process or another, is not mirrored again.
        """

    @abstractmethod
    def close(self, facts: Mapping[str, Any]) -> None:
        """Mirror the facts of the whole sweep, and let go of the mirror."""


@final
class NoTracking(Tracking):
    """The tables on disk are enough."""

    def start(self, name: str, folder: Path) -> None:
        pass

    def row(self, row: Mapping[str, Any]) -> None:
        pass

    def close(self, facts: Mapping[str, Any]) -> None:
        pass


@final
class Mlflow(Tracking):
    """An MLflow run for each study, in a store on this machine; nothing leaves it.

    Params are the axes, metrics the numeric columns (an answer is 1 or 0, an undecided one is left
    out), tags `fedpact.key`, `fedpact.job`, status, error and best. A study that failed and is held
    again has a run for either.

    Args:
        uri: of the store, sqlite:///FILE; None for mlflow/mlflow.db in the sweep's folder.
        experiment: name of the MLflow experiment; None for the sweep's own name.
    """

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        if uri is not None and not (isinstance(uri, str) and re.match(r"sqlite:///.*[^/]$", uri)):
            raise FedpactError(
                f"tracking.uri is {uri!r}; legal are null and sqlite:///FILE, since results stay "
                "on this machine. Leave it out to have the store in the sweep's folder."
            )
        if experiment is not None and not (isinstance(experiment, str) and experiment.strip()):
            raise FedpactError(
                f"tracking.experiment is {experiment!r}; legal are null and a name. Leave it out "
                "to use the sweep's name."
            )
        self.uri = uri
        self.experiment = experiment
        self._client: Any = None
        self._place = ""
        self._known: set[str] = set()

    def start(self, name: str, folder: Path) -> None:
        uri = self.uri or f"sqlite:///{(folder / 'mlflow' / 'mlflow.db').resolve()}"
        # Read when it is imported: it would call home.
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as fault:
            raise FedpactError(
                "tracking=mlflow needs the package mlflow-skinny, which is not installed. Install "
                'fedpact with its extra "tracking", or use tracking=none.'
            ) from fault
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with _quietly():
            try:
                self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            except (MlflowException, SQLAlchemyError) as fault:
                raise FedpactError(
                    f"tracking.uri is {uri!r}, which cannot be opened: {_line(fault)}. Legal is a "
                    "new file, or one that MLflow made. Leave it out to have the store in the "
                    "sweep's folder."
                ) from fault
            self._place = self._experiment(self.experiment or name, folder)
            self._known = set(self._keys())

    def _experiment(self, name: str, folder: Path) -> str:
        """The identity of the experiment of this name, which is made if it is new."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = (folder / "mlflow").resolve().as_uri()
            return str(self._client.create_experiment(name, artifact_location=place))
        if found.lifecycle_stage != "active":
            raise FedpactError(
                f"tracking.experiment is {name!r}, which was deleted from the store; legal is one "
                "that is there, or a new name. Restore it, or choose another."
            )
        return str(found.experiment_id)

    def _keys(self) -> Iterator[str]:
        """Keys of the rows that are in the store."""
        token: str | None = None
        while True:
            page = self._client.search_runs([self._place], page_token=token)
            yield from (r.data.tags["fedpact.key"] for r in page if _is_whole(r))
            token = page.token
            if not token:
                return

    def row(self, row: Mapping[str, Any]) -> None:
        axes = _axes(row)
        key = digest(json.dumps([row["job"], axes, row["status"]], default=str).encode())[:16]
        if key in self._known:
            return
        from mlflow.entities import Metric, Param

        tags = {"fedpact.key": key, "fedpact.job": str(row["job"])}
        tags |= {name: str(row[name]) for name in ("status", "error", "best") if _there(row[name])}
        now = int(1_000 * time.time())
        metrics = [Metric(_named(k), v, now, 0) for k, v in _metrics(row, axes)]
        params = [Param(_named(k), v) for k, v in axes.items()]
        with _quietly():
            run = self._client.create_run(
                self._place, run_name=f"job {row['job']}", tags=tags
            ).info.run_id
            self._client.log_batch(run, params=params)
            for first in range(0, len(metrics), BATCH):
                self._client.log_batch(run, metrics=metrics[first : first + BATCH])
            status = "FINISHED" if row["status"] == "ok" else "FAILED"
            self._client.set_terminated(run, status)
        self._known.add(key)

    def close(self, facts: Mapping[str, Any]) -> None:
        if self._client is None:
            return
        with _quietly():
            for name in ("name", "command", "design", "counts", "sha256", "finished"):
                value = facts[name]
                text = value if isinstance(value, str) else json.dumps(value)
                self._client.set_experiment_tag(self._place, f"fedpact.{name}", text)
        self._client = None


def _line(fault: Exception) -> str:
    return str(fault).partition("\n")[0]


def _is_whole(run: Any) -> bool:
    """A run that was interrupted while it was written is written again."""
    return "fedpact.key" in run.data.tags and run.info.status in ("FINISHED", "FAILED")


def _axes(row: Mapping[str, Any]) -> dict[str, str]:
    """The axes stand between the columns job and seeds."""
    columns = list(row)
    return {key: label(row[key]) for key in columns[1 : columns.index("seeds")]}


def _metrics(row: Mapping[str, Any], axes: Sequence[str] | Mapping[str, Any]) -> Iterator[Any]:
    for name, value in row.items():
        if name == "job" or name in axes or not _there(value):
            continue
        if isinstance(value, bool | int | float | np.bool_ | np.number):
            yield name, float(value)


def _there(value: Any) -> bool:
    return value is not None and label(value) != "null"


def _named(name: str) -> str:
    """A column's name in the letters that MLflow takes.

    >>> _named("full_sharing.a&b.gain")
    'full_sharing.a_26_b.gain'
    """
    return re.sub(r"[^\w.\- :]", lambda m: f"_{ord(m[0]):x}_", name)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without MLflow's words on how it makes its tables, and on what its own libraries retire."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)
        yield
