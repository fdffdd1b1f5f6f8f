"""The two studies on all of their real data: what the README says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulations.conclude import conclude
from simulations.engines import apps
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import contexts, hold_on, run_config
from tests.inline_grid import InlineGrid


def verdict_of(folder: Path, *overrides: str) -> Any:
    config = run_config(folder, *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    return conclude(study_of(json.loads(config["config"])), RunFolder(folder))


def check_loans(verdict: Any) -> None:
    scores = verdict["scores"]["infer_sharing"]
    assert scores["auc_contested.lender_a"] >= 0.735
    assert scores["auc_contested.lender_b"] >= 0.705
    assert scores["auc_contested.stacked"] >= 0.76
    assert verdict["contracts"]["infer_sharing"]["firms"]["lender_b"]["gain"] > 0.04
    for contract in verdict["contracts"].values():
        for firm in contract["firms"].values():
            assert firm["payoff"] == pytest.approx(firm["predicted"], abs=0.02)


def test_lenders_models_reach_the_level_of_the_data(tmp_path: Path) -> None:
    check_loans(verdict_of(tmp_path, "study.seeds=2", "study.contracts=[no_sharing,infer_sharing]"))


def test_switzerland_loses_and_va_long_beach_gains(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, "experiment=heart", "study.seeds=4")
    firms = verdict["contracts"]["train_sharing"]["firms"]
    assert firms["switzerland"]["gain"] < -0.05
    assert firms["va_long_beach"]["gain"] > 0.02


@pytest.mark.long
def test_ten_seeds_give_the_verdict_of_the_readme(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path)
    check_loans(verdict)
    for name in ("infer_sharing", "full_sharing"):
        contract = verdict["contracts"][name]
        assert contract["firms"]["lender_a"]["decision"] == "refuses"
        assert contract["firms"]["lender_b"]["decision"] == "signs"
        assert contract["individually_rational"] is False
    assert verdict["contracts"]["train_sharing"]["irpo"] is True


@pytest.mark.long
def test_twenty_splits_give_the_verdict_of_the_readme(tmp_path: Path) -> None:
    contract = verdict_of(tmp_path, "experiment=heart")["contracts"]["train_sharing"]
    assert contract["firms"]["switzerland"]["decision"] == "refuses"
    assert contract["firms"]["va_long_beach"]["decision"] == "signs"
    assert contract["individually_rational"] is False
