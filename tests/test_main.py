"""The command line, as a person uses it: real processes, real output."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from simulations.__main__ import _once_more
from tests.checks import SMALL_HEART, SMALL_LOANS, Told

ONE_SEED = (*SMALL_LOANS, "study.seeds=1")


def fedpact(*words: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "simulations", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def last_line(done: subprocess.CompletedProcess[str]) -> Path:
    return Path(done.stdout.splitlines()[-1])


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return fedpact(*SMALL_LOANS, cwd=tmp_path_factory.mktemp("loans"))


def test_a_run_prints_the_verdict_and_last_of_all_its_folder(
    loans: subprocess.CompletedProcess[str],
) -> None:
    folder = last_line(loans)
    assert folder.is_dir()
    assert folder.name.endswith("_loans")
    for word in ("Would every firm sign?", "lender_a", "full_sharing", "IRPO", "report.html"):
        assert word in loans.stdout


def test_another_level_is_told_wherever_an_interval_is_shown(here: Callable[..., Told]) -> None:
    done = here(*SMALL_LOANS, "study.confidence=0.999", "run_dir=run")
    assert done.returncode == 0, done.stderr
    assert "99.9 % interval" in done.stdout
    verdict = json.loads(Path("run/verdict.json").read_text())
    assert verdict["interval"].startswith("99.9 % interval of the mean paired gain")
    page = Path("run/report.html").read_text()
    assert "99.9 % interval" in page
    assert "95 % interval" not in done.stdout + page


def test_a_run_folder_holds_the_whole_record(loans: subprocess.CompletedProcess[str]) -> None:
    folder = last_line(loans)
    names = {p.name for p in folder.iterdir()} - {".lock"}
    assert names == {
        "config.yaml",
        "provenance.json",
        "rounds.csv",
        "scores.csv",
        "seconds.csv",
        "adoptions.csv",
        "problems.csv",
        "messages.csv",
        "payoffs.csv",
        "verdict.json",
        "game.json",
        "report.html",
        "run.log",
        "models",
        "sessions",
    }
    verdict = json.loads((folder / "verdict.json").read_text())
    for contract in verdict["contracts"].values():
        for key in ("individually_rational", "pareto_optimal", "irpo"):
            assert contract[key] in (True, False, None)
        for firm in contract["firms"].values():
            assert firm["decision"] in ("signs", "refuses", "undecided")
            assert firm["interval"][0] <= firm["gain"] <= firm["interval"][1]
            assert firm["predicted"] == pytest.approx(firm["payoff"], abs=0.25)
    manifest = json.loads((folder / "models" / "manifest.json").read_text())
    assert len(manifest["files"]) == 2 * 2 * 2
    for file, expected in manifest["files"].items():
        assert sha(folder / "models" / file) == expected
    origin = json.loads((folder / "provenance.json").read_text())
    assert origin["plan"] == ["inline: 2 firms in this process, 1 thread; they train on cpu"]
    assert origin["seeds"] == [0, 1]
    assert origin["finished"] >= origin["started"]
    assert "taiwan_credit.csv.gz" in origin["data_sha256"]
    HTMLParser().feed((folder / "report.html").read_text())


def test_train_sharing_pays_what_no_sharing_pays_unless_the_equilibrium_switches(
    loans: subprocess.CompletedProcess[str],
) -> None:
    contracts = json.loads((last_line(loans) / "verdict.json").read_text())["contracts"]
    alone, train = contracts["no_sharing"], contracts["train_sharing"]
    assert alone["irpo"] in (True, None)
    for firm in ("lender_a", "lender_b"):
        if train["firms"][firm]["gain"] == 0:
            assert train["firms"][firm]["decision"] == "signs"


def test_format_json_prints_the_verdict_and_the_folder_only(tmp_path: Path) -> None:
    done = fedpact(*ONE_SEED, "format=json", cwd=tmp_path)
    *text, folder = done.stdout.splitlines()
    assert json.loads("\n".join(text)) == json.loads((Path(folder) / "verdict.json").read_text())


def test_the_heart_study_runs_from_the_command_line(tmp_path: Path) -> None:
    done = fedpact(*SMALL_HEART, "run_dir=here", cwd=tmp_path)
    assert last_line(done) == tmp_path / "here"
    firms = json.loads((tmp_path / "here/verdict.json").read_text())["contracts"]["train_sharing"]
    assert set(firms["firms"]) == {"cleveland", "hungary", "switzerland", "va_long_beach"}
    assert firms["firms"]["cleveland"]["predicted"] is None


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (["--help"], "fedref_digits, fedref_fashion, heart, "),
        (["--cfg", "job"], "study:"),
        (["--info", "searchpath"], "pkg://conf"),
    ],
)
def test_hydra_answers(flag: list[str], words: str, tmp_path: Path) -> None:
    told = fedpact(*flag, cwd=tmp_path)
    assert words in told.stdout
    assert not list(tmp_path.iterdir())


def test_tab_completion_knows_the_choices(tmp_path: Path) -> None:
    line = "fedpact engine="
    done = subprocess.run(
        [sys.executable, "-m", "simulations", "--shell-completion", "query=bash"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ
        | {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        },
    )
    names = ("batched", "flower", "inline", "ray")
    assert set(done.stdout.split()) == {f"engine={name}" for name in names}


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("maket=loans", "Did you mean 'market'?"),
        ("sead=3", "Did you mean 'study.seeds'?"),
        ("training.epoch=3", "Did you mean 'training.epochs'?"),
        ("market=lons", "Did you mean 'loans'?"),
        ("backbone.widths=3", "with backbone=logistic: it is a setting of backbone=mlp. Write"),
        ("market.gamma=1.5", "from 0 to 1"),
        (
            "experiment=heart participation.absent.hungary=[1]",
            "write +participation.absent.hungary",
        ),
        ("training.device=cuda:99", "Use training.device=auto"),
        ("play.signal_bins=99", "2 to 8"),
        ("format=xml", "legal are text, json"),
        ("dry_run=perhaps", "legal are true and false"),
        ("resume=nowhere", "there is no nowhere/config.yaml"),
        ("dry_run=true market.C1=-1", "market.C1 is -1"),
        ("engine=ray engine.num_gpus=64 training.device=auto dry_run=true", "this machine has"),
    ],
)
def test_a_mistake_is_explained_in_one_line_and_leaves_nothing(
    word: str, advice: str, here: Callable[..., Told], tmp_path: Path
) -> None:
    done = here(*word.split())
    assert done.returncode == 2
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert tmp_path.is_dir()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_dry_run_prints_the_plan_and_trains_nothing(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    done = here("dry_run=true", "engine=ray", "engine.workers=1")
    for word in (
        "lender_a",
        "Logistic",
        "18,000",
        "bytes down",
        "messages",
        "1 actors x 1 CPU",
        "Nothing was trained",
    ):
        assert word in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_in_json_is_json(here: Callable[..., Told]) -> None:
    done = here("dry_run=true", "format=json")
    *text, _ = done.stdout.splitlines()
    plan = json.loads("\n".join(text))
    assert set(plan["firms"]) == {"lender_a", "lender_b"}
    assert "40 sessions in all" in plan["plan"]


def test_a_killed_run_goes_on_to_the_same_result(
    loans: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    whole, cut = last_line(loans), tmp_path / "cut"
    running = subprocess.Popen(
        [sys.executable, "-m", "simulations", *SMALL_LOANS, f"run_dir={cut}"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(cut.glob("sessions/*.sha256"))) < 3 and running.poll() is None:
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (cut / "verdict.json").exists()
    held = {p: p.stat().st_mtime_ns for p in cut.glob("sessions/*.sha256")}
    assert held
    done = fedpact(f"resume={cut}", cwd=tmp_path)
    assert last_line(done) == cut
    for path, written in held.items():
        assert path.stat().st_mtime_ns == written  # finished sessions were not held again
    for name in ("verdict.json", "payoffs.csv", "models/manifest.json", "rounds.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


FEDERATED = (
    *SMALL_HEART,
    *("study.seeds=1", "strategy=fedref", "strategy.mode=pull", "strategy.rounds=12"),
    *("strategy.local_epochs=1", "study.watch=true"),
)


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return last_line(fedpact(*FEDERATED, cwd=tmp_path_factory.mktemp("federated")))


@pytest.mark.parametrize(
    "trained", [13, *(pytest.param(n, marks=pytest.mark.long) for n in range(5, 44, 4))]
)
def test_a_run_killed_in_the_middle_of_a_round_goes_on_to_the_same_result(
    federated: Path, tmp_path: Path, trained: int
) -> None:
    """The process is killed when so many trainings of a firm are on file."""
    cut = tmp_path / "cut"
    running = subprocess.Popen(
        [sys.executable, "-m", "simulations", *FEDERATED, f"run_dir={cut}"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    rounds = cut / "rounds.csv"
    while running.poll() is None:
        if rounds.exists() and rounds.read_text().count("train_sharing") >= trained:
            break
        time.sleep(0.0005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (cut / "verdict.json").exists()
    (begun,) = cut.glob("sessions/train_sharing-seed0.progress")
    assert begun.stat().st_size > 0
    assert last_line(fedpact(f"resume={cut}", cwd=tmp_path)) == cut
    for name in ("verdict.json", "models/manifest.json", "rounds.csv", "scores.csv"):
        assert sha(cut / name) == sha(federated / name), name


def test_a_folder_that_holds_a_run_is_not_written_over(
    loans: subprocess.CompletedProcess[str], here: Callable[..., Told]
) -> None:
    folder = last_line(loans)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock"}
    done = here(*ONE_SEED, "market.C1=9", f"run_dir={folder}")
    assert done.returncode == 2
    assert "already holds a run" in done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_resumed_run_keeps_the_command_that_made_it(
    loans: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(last_line(loans), folder)
    first = json.loads((folder / "provenance.json").read_text())
    fedpact(f"resume={folder}", "progress=none", cwd=tmp_path)
    again = json.loads((folder / "provenance.json").read_text())
    assert again["command"] == first["command"]
    assert again["resumed"][0]["command"][-2].startswith("resume=")
    assert sha(folder / "verdict.json") == sha(last_line(loans) / "verdict.json")


def test_ctrl_c_ends_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "simulations", f"run_dir={tmp_path / 'run'}"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(tmp_path.glob("run/sessions/*.sha256")):
        assert running.poll() is None
        time.sleep(0.05)
    sent = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"fedpact resume={tmp_path / 'run'}" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - sent < 30
    assert not (tmp_path / "run" / "verdict.json").exists()


def test_resuming_another_study_is_refused_and_a_mended_one_is_not(
    loans: subprocess.CompletedProcess[str], here: Callable[..., Told], tmp_path: Path
) -> None:
    folder = last_line(loans)
    done = here(f"resume={folder}", "market.C1=9")
    assert done.returncode == 2
    assert "this would change it: market.C1." in done.stderr
    kept = ("limits.wait_s=60", "training.device=auto", "experiment=loans")
    fedpact(f"resume={folder}", "progress=none", *kept, cwd=tmp_path)


@pytest.mark.parametrize("ignored", [(), (signal.SIGINT,)], ids=["in front", "in the background"])
def test_a_ctrl_c_that_python_drops_is_given_again(
    ignored: tuple[signal.Signals, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", partial(_once_more, others.append))

    class Thing:
        pass

    def drops(fault: type[BaseException]) -> None:
        def end(_: object) -> None:
            raise fault

        thing = Thing()
        watched = weakref.ref(thing, end)
        del thing
        assert watched() is None

    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(one) for one in both]
    try:
        for one in both:
            signal.signal(one, signal.SIG_IGN if one in ignored else signal.default_int_handler)
        drops(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
    finally:
        for one, handler in zip(both, before, strict=True):
            signal.signal(one, handler)
    assert not others
    drops(ValueError)
    assert [told.exc_type for told in others] == [ValueError]


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_when_all_is_done_does_not_change_how_it_ended(told: signal.Signals) -> None:
    # What is registered first is called last; soon after it Python's own answer to signals goes.
    code = f"""
import atexit, os, signal, sys
def last():
    assert signal.getsignal({int(told)}) is signal.SIG_IGN
    os.kill(os.getpid(), {int(told)})
atexit.register(last)
from simulations.__main__ import main
sys.argv = ["fedpact", "--help"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("fedpact: would every firm sign?")
