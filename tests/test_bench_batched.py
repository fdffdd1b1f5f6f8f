"""`python -m simulations.bench batched`: what it prints, and what it does not count."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from simulations.bench.__main__ import main
from simulations.bench.batched import _line

ROW = (
    r"  (.{12}) +([\d,]* parameters)? +[\d.]+ (loop|inline) +[\d.]+ batched +([\d.]+) x less "
    r"\[([\d.]+) to ([\d.]+)\], losses within (\S+?)(, at least (\d): (holds|missed))?"
)


def test_a_row_a_model_and_one_for_a_study_and_all_of_them_count(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    words = ["bench", "batched", "--firms", "2", "--rounds", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    lines = capsys.readouterr().out.splitlines()
    rows = [row for line in lines if (row := re.fullmatch(ROW, line))]
    assert [(row[1].strip(), row[9]) for row in rows] == [
        ("digits MLP", "8"),
        ("fashion MLP", "2"),
        ("fashion CNN", None),
        ("whole study", None),
    ]
    assert all(row[4] == row[5] == row[6] for row in rows)  # there was one repeat
    assert float(rows[0][4]) > 2  # a batch of a hundred small models pays anywhere
    assert float(rows[2][7]) == 0  # trained by itself, to the same bits
    assert torch.get_num_threads() == threads


def test_a_row_whose_losses_differ_does_not_count() -> None:
    pairs = [(0.010, 0.001), (0.009, 0.001), (0.030, 0.001)]
    assert _line(pairs, "loop", 1e-6, 8).endswith(
        "10.0 x less [9.0 to 30.0], losses within 1e-06, at least 8: holds"
    )
    assert _line(pairs, "loop", 1e-6, 11).endswith("at least 11: missed")
    for apart in (2e-5, float("nan")):
        assert _line(pairs, "loop", apart, 8).endswith(": does not count")
