"""`python -m simulations.bench arm`: what it prints; a forecast knows no case of its own kind."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch

from parties.reuse.forecast import leave_one_kind_out
from simulations.bench import arm
from simulations.bench.__main__ import main

SHIFTS = ("noise_0.3", "blur_1", "contrast_0.2", "inversion", "rotation_45", "salt_0.3", "shuffle")


def test_what_a_forecast_costs_and_how_often_it_is_right_is_told_of_every_forecaster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    for name, value in (("SOURCE_EPOCHS", 2), ("LONGEST", 1), ("OFFERED_FOR", SHIFTS)):
        monkeypatch.setattr(arm, name, value)
    monkeypatch.setattr(arm, "MODELS", ("mlp-0", "mlp-1", "mlp-2", "mlp-3"))
    monkeypatch.setattr(sys, "argv", ["bench", "arm", "--repeats", "1"])
    main()
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "4 models, each offered for 7 shifts of digits, one thread, 1 alternated repeats"
    for name in arm.FORECASTERS:
        mine = [line for line in lines if re.search(rf"  {name} +[\d.e-]+ ", line)]
        cost, error, inside, known = mine
        assert re.search(r"ms +[\d.]+ x 1 epochs$", cost)  # with one repeat there is no spread
        assert re.search(r"epochs +[\d.]+ x a blind guess's$", error)
        assert re.search(r"at least 0\.8: (holds|missed)$", inside)
        assert 0 < float(known.split()[-3]) <= 1
    assert torch.get_num_threads() == threads


def test_a_case_is_forecast_from_cases_of_other_kinds_only() -> None:
    rng = np.random.default_rng(0)
    said, epochs = rng.normal(size=(30, 2)), rng.random(30) * 5
    kinds = np.repeat(["noise", "blur", "salt"], 10)
    told, seconds = arm.forecast(said, epochs, kinds)
    assert told == leave_one_kind_out(said, epochs, kinds, miss=arm.MISS)
    assert seconds > 0
    others = np.where(kinds == "blur", 10 * epochs, epochs)
    again, _ = arm.forecast(said, others, kinds)
    assert again[10:20] == told[10:20]
    assert again[:10] != told[:10]
