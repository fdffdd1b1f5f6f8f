"""`python -m simulations.bench masks`: what it prints."""

from __future__ import annotations

import re
import sys

import pytest

from simulations.bench import masks
from simulations.bench.__main__ import main

ROW = r" +(\d+) +([\d,]+) +(\S+) +(\d+) +([\d,.]+) down ([\d,.]+) up +[\d.]+ +[\d.]+"


def test_a_masked_round_takes_four_times_the_messages_and_twice_the_bytes_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "masks", "--repeats", "1"])
    monkeypatch.setattr(masks, "SIZES", ((5, 10_000),))
    main()
    lines = capsys.readouterr().out.splitlines()
    rows = [row for line in lines if (row := re.fullmatch(ROW, line))]
    plain, masked, silent = rows
    assert [row[3] for row in rows] == ["plain", "0", "1"]
    # Who is gone answers the last but one question no more, and is not asked the last.
    assert [int(row[4]) for row in rows] == [10, 40, 38]
    assert 1.9 < float(masked[6]) / float(plain[6]) < 2.2
    assert float(silent[6]) < float(masked[6])
