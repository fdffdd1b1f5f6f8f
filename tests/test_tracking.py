"""Rows mirrored in a real MLflow store on this machine, once each, and nothing sent anywhere."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from parties.exchange import FedpactError
from simulations.build import build
from simulations.tracking import Mlflow, NoTracking
from tests.sweep_tables import FULL, facts_of, failed, grid, study_table

DESIGN = grid(market_C1=[-2.0, 0.0, 2.0], play=["myopic"])
TABLE = failed(study_table(DESIGN, ("alice", "b&b")), [2], "ValueError", "broke")
ROWS: list[dict[str, Any]] = TABLE.to_dict("records")


@pytest.fixture(scope="module")
def called() -> Iterator[list[object]]:
    """Every other machine that was asked for; none answers."""
    called: list[object] = []

    def refuse(*words: object, **more: object) -> None:
        called.append(words)
        raise OSError("offline")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield called


@pytest.fixture(scope="module")
def folder(called: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three studies, mirrored."""
    folder = tmp_path_factory.mktemp("sweep")
    mirrored(folder, ROWS)
    return folder


def mirrored(folder: Path, rows: list[Mapping[str, Any]], **settings: Any) -> None:
    tracking = Mlflow(**settings)
    tracking.start("made_up", folder)
    for row in rows:
        tracking.row(row)
    tracking.close(facts_of(TABLE))


def store(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow/mlflow.db"


def runs(folder: Path, experiment: str = "made_up") -> dict[str, Any]:
    """What MLflow's own client reads, by the runs' names."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store(folder))
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found)
    return named


def test_every_row_is_a_run_with_its_axes_measures_and_status(folder: Path) -> None:
    found = runs(folder)
    assert set(found) == {"job 0", "job 1", "job 2"}
    for row in ROWS:
        data = found[f"job {row['job']}"].data
        assert data.params == {"market.C1": f"{row['market.C1']:g}", "play": "myopic"}
        assert data.tags["status"] == row["status"]
        assert data.tags["fedpact.job"] == str(row["job"])
    assert found["job 0"].data.tags["best"] == "no_sharing"
    assert "best" not in found["job 1"].data.tags
    assert found["job 2"].data.tags["error"] == "ValueError"
    assert found["job 2"].data.metrics == {"seeds": 3}
    assert [found[f"job {n}"].info.status for n in range(3)] == ["FINISHED", "FINISHED", "FAILED"]


def test_metrics_are_the_numeric_columns_to_the_last_bit(folder: Path) -> None:
    found = runs(folder)
    numbers = [c for c in TABLE if c.endswith((".gain", ".low", ".high", ".predicted", ".surplus"))]
    for job in (0, 1):
        metrics = found[f"job {job}"].data.metrics
        for column in numbers:
            assert metrics[column.replace("&", "_26_")] == TABLE.at[job, column]
    assert found["job 0"].data.metrics[f"{FULL}.signed"] == 0
    assert f"{FULL}.signed" not in found["job 1"].data.metrics  # undecided
    assert found["job 1"].data.metrics[f"{FULL}.predicted_signed"] == 1


def test_going_on_with_a_sweep_writes_nothing_twice(folder: Path) -> None:
    first = {name: run.info.run_id for name, run in runs(folder).items()}
    mirrored(folder, ROWS)
    mirrored(folder, json.loads(TABLE.to_json(orient="records")))  # as they are read from a file
    assert {name: run.info.run_id for name, run in runs(folder).items()} == first


def test_a_failed_study_that_is_held_again_has_a_run_of_its_own(folder: Path) -> None:
    again = {**study_table(DESIGN, ("alice", "b&b")).to_dict("records")[2]}
    for _ in range(2):
        mirrored(folder, [*ROWS, again], experiment="again", uri=store(folder))
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store(folder))
    found = client.search_runs([client.get_experiment_by_name("again").experiment_id])
    assert sorted(run.data.tags["status"] for run in found) == ["failed", "ok", "ok", "ok"]


def test_a_run_that_was_interrupted_is_mirrored_again(folder: Path) -> None:
    tracking = Mlflow(experiment="cut", uri=store(folder))
    tracking.start("made_up", folder)
    client = tracking._client
    real, cut = client.set_terminated, RuntimeError("cut off")

    def stop(*words: object) -> None:
        raise cut

    client.set_terminated = stop
    with pytest.raises(RuntimeError, match="cut off"):
        tracking.row(ROWS[0])
    client.set_terminated = real
    mirrored(folder, ROWS[:1], experiment="cut", uri=store(folder))
    experiment = client.get_experiment_by_name("cut").experiment_id
    status = sorted(run.info.status for run in client.search_runs([experiment]))
    assert status == ["FINISHED", "RUNNING"]


def test_no_other_machine_is_asked(folder: Path, called: list[object]) -> None:
    mirrored(folder, ROWS)
    assert called == []
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"


def test_a_deleted_experiment_is_not_written_to(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    mirrored(folder, [], experiment="gone", uri=store(folder))
    client = MlflowClient(tracking_uri=store(folder))
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(FedpactError, match=r"'gone', which was deleted.*choose another"):
        mirrored(folder, ROWS, experiment="gone", uri=store(folder))


def test_the_facts_of_the_sweep_are_on_its_experiment(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    experiment = MlflowClient(tracking_uri=store(folder)).get_experiment_by_name("made_up")
    facts = facts_of(TABLE)
    assert experiment.tags["fedpact.sha256"] == facts["sha256"]
    assert json.loads(experiment.tags["fedpact.counts"]) == facts["counts"]
    assert experiment.tags["fedpact.command"] == facts["command"]


ELSEWHERE = ["http://x", "https://x/api", "databricks", "databricks://p", "postgresql://x/y"]


@pytest.mark.parametrize("uri", [*ELSEWHERE, "sqlite://", "runs", 3])
def test_a_store_elsewhere_is_refused(uri: Any) -> None:
    with pytest.raises(FedpactError, match=r"tracking\.uri is .*legal are null and sqlite:///FILE"):
        build({"_target_": "simulations.tracking.Mlflow", "uri": uri})


def test_a_store_that_cannot_be_opened_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no store")
    tracking = Mlflow(uri=f"sqlite:///{tmp_path}/notes.txt")
    with pytest.raises(FedpactError, match=r"cannot be opened.*Leave it out"):
        tracking.start("made_up", tmp_path)


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)
    with pytest.raises(FedpactError, match=r'mlflow-skinny.*extra "tracking".*tracking=none'):
        Mlflow().start("made_up", tmp_path)


def test_without_tracking_nothing_is_written(tmp_path: Path) -> None:
    tracking = build({"_target_": "simulations.tracking.NoTracking"})
    assert isinstance(tracking, NoTracking)
    tracking.start("made_up", tmp_path)
    tracking.row(ROWS[0])
    tracking.close(facts_of(TABLE))
    assert list(tmp_path.iterdir()) == []
