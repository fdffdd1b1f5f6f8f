"""A run folder: whole files, checked sessions, tidy rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parties.exchange import FedpactError, Weights
from parties.files import write_whole
from server.outcome import Outcome
from server.transport import Sent
from simulations.conclude import conclude
from simulations.docket import RunDocket
from simulations.engines import apps
from simulations.results import RunFolder, load
from simulations.study import study_of
from tests.checks import SMALL_HEART, SMALL_LOANS, contexts, hold_on, plain, run_config
from tests.inline_grid import InlineGrid


def filed(folder: RunFolder) -> Outcome:
    outcome = Outcome(
        seed=3,
        contract="full_sharing",
        ids={"a": np.arange(4), "b": np.arange(4)},
        payoffs={"a": np.arange(4.0), "b": -np.arange(4.0)},
        predicted={"a": 0.5, "b": 0.25},
        excluded={"b": "too late"},
        models={"a": Weights({"w": np.ones((2, 2), np.float32)}, 4)},
        table=np.full((2, 2, 2), 1 / 8),
        clients=np.array([4, 9]),
        belief=np.full((2, 2, 2), 1 / 8),
        maps=(np.zeros((2, 2), int), np.ones((2, 2), int)),
        scores={"auc": 0.7},
    )
    folder.file(outcome)
    return outcome


def test_a_session_comes_back_as_it_was_filed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    outcome = filed(folder)
    loaded = folder.load("full_sharing-seed3")
    assert loaded is not None
    back, models = loaded
    np.testing.assert_array_equal(back.payoffs["b"], outcome.payoffs["b"])
    np.testing.assert_array_equal(back.ids["a"], outcome.ids["a"])
    assert back.maps is not None
    np.testing.assert_array_equal(back.maps[1], np.ones((2, 2)))
    for name in ("seed", "contract", "predicted", "excluded", "declined", "scores"):
        assert getattr(back, name) == getattr(outcome, name)
    assert list(models) == ["full_sharing/seed3/a.safetensors"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    cut=st.booleans(),
    which=st.sampled_from(
        [
            "sessions/full_sharing-seed3.safetensors",
            "sessions/full_sharing-seed3.sha256",
            "models/full_sharing/seed3/a.safetensors",
        ]
    ),
)
def test_a_changed_or_cut_file_is_never_taken_for_a_session(
    place: float, bit: int, cut: bool, which: str, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    filed(folder)
    path = tmp_path / which
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if cut:
        content = content[:at]
    else:
        content[at] ^= 1 << bit
    if which.endswith("sha256") and content.decode(errors="replace").strip() == (
        path.read_text().strip()
    ):
        return  # only the line break at the end was changed
    path.write_bytes(content)
    assert folder.load("full_sharing-seed3") is None


def test_writing_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_whole(path, b"old")
    (tmp_path / "x.part").write_bytes(b"cut off while writ")  # what a killed run leaves
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_runs_cannot_hold_one_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).lock(),
        pytest.raises(FedpactError, match="in use by another run"),
        RunFolder(tmp_path).lock(),
    ):
        pass


def test_loading_gives_tidy_rows(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    study = study_of(json.loads(config["config"]))
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    verdict = conclude(study, RunFolder(tmp_path))
    rows = load(tmp_path)
    assert len(rows) == 2 * 4 * 2
    assert list(rows.columns) == [
        "study",
        "seed",
        "contract",
        "firm",
        "clients",
        "payoff",
        "predicted",
        "gain",
        "decision",
    ]
    for (contract, firm), group in rows.groupby(["contract", "firm"]):
        told = verdict["contracts"][contract]["firms"][firm]
        assert group["payoff"].mean() == pytest.approx(told["payoff"])
        assert group["gain"].mean() == pytest.approx(told["gain"], abs=1e-12)
        assert set(group["decision"]) == {told["decision"]}
    assert set(rows[rows.contract == "no_sharing"]["gain"]) == {0.0}


def test_loading_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    with pytest.raises(FedpactError, match=r"no finished run.*resume="):
        load(tmp_path)


def test_a_missing_session_is_named(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    study = study_of(json.loads(config["config"]))
    with pytest.raises(FedpactError, match=r"lacks the session no_sharing-seed0"):
        conclude(study, RunFolder(tmp_path))


def test_a_row_that_was_being_written_when_a_run_was_killed_is_dropped(tmp_path: Path) -> None:
    study = study_of(plain(*SMALL_HEART))
    docket, folder = RunDocket(study, RunFolder(tmp_path)), tmp_path / "messages.csv"
    docket.audit(Sent(0, "", 0, "operator", "cleveland", "Enrol", "", 9, "no_sharing-seed0"))
    docket.close()
    whole = folder.read_bytes()
    assert whole.count(b"\n") == 2
    RunFolder(tmp_path).file(Outcome(0, "no_sharing", summaries={}, scores={}))
    for cut in (1, 5, len(whole) - whole.find(b"\n") - 2):
        folder.write_bytes(whole + whole[-cut - 1 : -1])
        RunDocket(study, RunFolder(tmp_path)).close()
        assert folder.read_bytes() == whole
