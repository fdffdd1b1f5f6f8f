"""`python -m simulations.bench canonicalize`: what it prints, and what it takes for agreement."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from simulations.bench.__main__ import main
from simulations.bench.canonicalize import Agreement, Case
from simulations.bench.peers.equiadapt import Answer


def printed(
    *arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Lines that the command prints."""
    monkeypatch.setattr(sys, "argv", ["bench", "canonicalize", "--repeats", "1", *arguments])
    main()
    return capsys.readouterr().out.splitlines()


def test_without_the_peer_ours_is_measured_alone_and_the_way_to_the_peer_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    lines = printed("--peer", str(tmp_path / "none"), capsys=capsys, monkeypatch=monkeypatch)
    assert "make bench-peers" in lines[0]
    ours = [line for line in lines if re.fullmatch(r"  C[48], \d+ of \d+ px +[\d.]+ ours", line)]
    assert [line.split(" px")[0].strip() for line in ours] == [
        "C4, 128 of 32",
        "C8, 128 of 32",
        "C4, 4 of 224",
        "C8, 4 of 224",
    ]
    ratio = r"canonicalized +[\d.]+ alone +([\d.]+) x \[([\d.]+) to ([\d.]+)\]  at most (1.[36]0): "
    behind = [found for line in lines if (found := re.search(ratio, line))]
    assert [found[4] for found in behind] == ["1.30", "1.60"]
    assert all(found[1] == found[2] == found[3] for found in behind)  # there was one repeat
    assert torch.get_num_threads() == threads


def test_an_interpreter_without_the_peer_is_refused_with_what_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"No module named 'equiadapt'.*make bench-peers"):
        printed("--peer", sys.executable, capsys=capsys, monkeypatch=monkeypatch)


def test_answers_agree_with_themselves_and_with_no_others(tmp_path: Path) -> None:
    case = Case(8, torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    ours = case.answer()
    ours.write(tmp_path / "answer.npz")
    again = Agreement.between(ours, Answer.read(tmp_path / "answer.npz"))
    assert again == Agreement(1.0, 0.0, 0.0, 0.0)
    assert again.holds
    # What comes in from outside an image differs under eighths, and not under quarters.
    zeros = Agreement.between(ours, Case(8, case.images, "zeros").answer())
    assert zeros.quarters == 0
    assert zeros.others is not None
    assert zeros.others > 1e-3
    assert not zeros.holds
    other_sense = Answer(ours.scores[:, -torch.arange(8) % 8], ours.element, ours.images)
    assert not Agreement.between(ours, other_sense).holds
    other_images = Answer(ours.scores, ours.element, ours.images.flip(-1))
    assert not Agreement.between(ours, other_images).holds


def test_an_image_count_of_none_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        printed("--images", "0", capsys=capsys, monkeypatch=monkeypatch)
    assert "--images is a whole number >= 1" in capsys.readouterr().err
