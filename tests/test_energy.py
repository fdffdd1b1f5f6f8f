"""Energy: seconds and watts, codecarbon, and what of them reaches the results."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from parties.energy import Meter, Spent
from parties.energy.code_carbon import CodeCarbon
from parties.energy.watts import Watts
from parties.exchange import ExchangeError, FedpactError, Trained
from simulations.engines import apps
from tests.checks import SMALL_HEART, contexts, hold_on, run_config
from tests.inline_grid import InlineGrid

CPU = torch.device("cpu")


def worked(meter: Meter, rounds: int = 40) -> Spent:
    read = meter.start(CPU)
    matrix = torch.ones(300, 300)
    for _ in range(rounds):
        matrix = matrix @ matrix / 300
    return read()


def test_watts_are_joules_a_second() -> None:
    spent = worked(Watts(cpu_watts=20, kg_co2e_kwh=0.5, price_kwh=3.0))
    assert spent.cpu_seconds > 0
    assert spent.gpu_seconds == 0
    assert spent.joules == pytest.approx(20 * spent.cpu_seconds)
    assert spent.kwh == pytest.approx(spent.joules / 3.6e6)
    assert spent.kg_co2e == pytest.approx(0.5 * spent.kwh)
    assert spent.known == "estimated"
    assert Watts(price_kwh=3.0).money(spent) == pytest.approx(3.0 * spent.kwh)
    hour = Spent(3600.0, 1800.0, 7.2e6, 0.8)
    meter = Watts(price_kwh=0.5, price_cpu_hour=2.0, price_gpu_hour=8.0)
    assert meter.money(hour) == pytest.approx(2 * 0.5 + 2.0 + 4.0)


def test_codecarbon_counts_this_process_without_a_network() -> None:
    pytest.importorskip("codecarbon")
    spent = worked(CodeCarbon(country="fra"))
    assert spent.joules > 0
    assert spent.kg_co2e > 0
    assert spent.known in ("measured", "estimated")
    germany = worked(CodeCarbon(country="DEU"))
    # A kilowatt hour of French electricity emits less than half of a German one.
    assert spent.kg_co2e / spent.joules < germany.kg_co2e / germany.joules / 2


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: Watts(cpu_watts=-1), "energy.cpu_watts is -1; legal is a number >= 0"),
        (lambda: Watts(price_kwh=float("nan")), "energy.price_kwh is nan"),
        (lambda: CodeCarbon(country="Germany"), "Write DEU for Germany"),
    ],
)
def test_what_a_meter_cannot_take_is_said(build_it: Any, message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        build_it()


@pytest.mark.parametrize("known", ["guessed", ""])
def test_how_energy_is_known_is_one_of_two_words(known: str) -> None:
    with pytest.raises(ExchangeError, match="measured and estimated"):
        Trained(1, (0.5,), known=known)


def test_the_results_tell_each_firms_energy_and_how_it_is_known(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_HEART, "study.seeds=1", "energy.cpu_watts=50")
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    rows = list(csv.DictReader((tmp_path / "seconds.csv").read_text().splitlines()))
    assert len(rows) == 4 + 2 * 4  # alone, then two rounds
    for row in rows:
        assert float(row["joules"]) == pytest.approx(50 * float(row["cpu_seconds"]))
        assert row["known"] == "estimated"
