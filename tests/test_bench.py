"""`python -m simulations.bench`: rows, the report that collects them, and what CPU is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulations.bench.__main__ import COMMANDS, main
from simulations.bench.report import add_to_report
from simulations.bench.row import Bar, Row
from simulations.bench.tree import tree_cpu_seconds

RATIOS = (1.2, 0.9, 1.4)
ROWS = [
    Row("CPU of a firm", "loop", (2.0, 2.5, 3.0), "ms"),
    Row("CPU of a firm", "inline", (2.4,), "ms", RATIOS, "loop", Bar(1.5), peak_mb=300.0),
    Row("CPU of a firm", "peer", (9.0,), "ms", (4.0,), "loop", Bar(1.5)),
    Row("CPU of a firm", "broken", (0.1,), "ms", (0.1,), "loop", Bar(1.5), "its loss differs"),
    Row("Rounds a second", "a & b", (1234.5,), "/s"),
]


def test_rows_of_several_commands_are_one_report_and_a_command_again_replaces_itself(
    tmp_path: Path,
) -> None:
    add_to_report(tmp_path, "clients", ["--out", "x", "--firms", "9"], "What firms cost", ROWS[:2])
    add_to_report(tmp_path, "rounds", ["--out=x"], "What rounds cost", ROWS)
    page = add_to_report(tmp_path, "clients", ["--firms", "9"], "What firms cost", ROWS[1:4])
    held = json.loads((tmp_path / "bench.json").read_bytes())
    assert [(c["command"].split("bench ")[1], len(c["rows"])) for c in held] == [
        ("clients --firms 9", 3),
        ("rounds", 5),
    ]
    inline = held[0]["rows"][0]
    assert [inline[k] for k in ("value", "ratio", "low", "high")] == [2.4, 1.2, 0.9, 1.4]
    assert [row["verdict"] for row in held[0]["rows"]] == ["holds", "missed", "void"]
    assert {"processor", "cores", "versions", "git", "started"} <= set(held[0]["machine"])
    text = (tmp_path / "bench.md").read_text()
    assert "| inline | 2.4 ms | 1.2 x loop | 0.9 to 1.4 | at most 1.5 | holds | 300 MB |" in text
    assert "| broken | 0.1 ms | 0.1 x loop |  | at most 1.5 | void: its loss diff" in text
    assert "| a & b | 1,234 /s |" in text
    html = page.read_text()
    assert html.count("<svg") == 2
    assert "a &amp; b" in html
    assert html.count("<h2>") == 2


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("mine")
    with pytest.raises(Exception, match=r"bench\.json is no report.*Choose another folder"):
        add_to_report(tmp_path, "rounds", [], "What rounds cost", ROWS)
    assert (tmp_path / "bench.json").read_text() == "mine"


def test_a_mistyped_command_and_a_count_of_none_are_told_what_is_legal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "round"])
    with pytest.raises(SystemExit, match=r"no command 'round'; legal are .*Did you mean rounds\?"):
        main()
    monkeypatch.setattr(sys, "argv", ["bench", "masks", "--repeats", "0"])
    with pytest.raises(SystemExit):
        main()
    assert "it is '0'; --repeats is a whole number >= 1" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["bench"])
    main()
    told = capsys.readouterr().out
    assert all(f"\n{name} " in told for name in COMMANDS)


def test_cpu_of_grandchildren_and_orphans_counts_and_that_of_strangers_does_not(
    tmp_path: Path,
) -> None:
    """An orphan burns CPU after its parent ended, beside a process of nobody's."""
    (tmp_path / "orphan.py").write_text(
        "import time\n"
        "while time.process_time() < 0.25: pass\n"
        "open('done', 'w').close()\n"
        "time.sleep(60)\n"
    )
    script = """
import os, signal, subprocess, sys, time
from simulations.bench.tree import keep_orphans, tree_cpu_seconds
keep_orphans()
before = tree_cpu_seconds(os.getpid())
orphaned = "subprocess.Popen([sys.executable, 'orphan.py'], stdout=subprocess.DEVNULL)"
parent = f"import subprocess, sys; print({orphaned}.pid)"
orphan = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, check=True).stdout
while not os.path.exists("done"):
    time.sleep(0.01)
alive = tree_cpu_seconds(os.getpid()) - before
os.kill(int(orphan), signal.SIGKILL)
os.waitpid(int(orphan), 0)
print(alive, tree_cpu_seconds(os.getpid()) - before)
"""
    busy = "import time\nwhile time.process_time() < 20: pass"
    with subprocess.Popen([sys.executable, "-c", busy]) as stranger:
        try:
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
        finally:
            stranger.kill()
    alive, gone = map(float, done.stdout.split())
    assert 0.24 <= alive <= gone + 0.01
    assert gone < 2  # three interpreters that start, and the quarter that one burnt


def test_the_cpu_of_this_process_is_what_its_own_clock_says() -> None:
    before, clock = tree_cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < clock + 0.1:
        pass
    assert tree_cpu_seconds(os.getpid()) - before == pytest.approx(0.1, abs=0.03)
