"""The same study on every engine: equal digests, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parties.exchange import FedpactError
from simulations.build import build, sha256
from simulations.conclude import conclude
from simulations.engines import Engine, Job, apps, flower, one_ray
from simulations.engines.batched import Batched
from simulations.engines.flower import FlowerSimulation
from simulations.engines.flower_run import MARK
from simulations.engines.ray_actors import RayActors, check_share
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import (
    SMALL_HEART,
    SMALL_LOANS,
    contexts,
    firms_of,
    hold_on,
    plain,
    run_config,
)
from tests.failing_firm import FAILS
from tests.inline_grid import InlineGrid
from tests.test_walls import check_audit

# Ray opens sockets and files that it leaves to the end of the process.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


PRICED = (*SMALL_LOANS, "contract.train_sharing.price=0.01", "contract.full_sharing.price=-0.02")


def hold(folder: Path, *overrides: str) -> Path:
    """Hold a study on the engine that the overrides choose."""
    folder.mkdir(parents=True)
    config = plain(*overrides)
    engine: Engine = build(config["engine"])
    engine.hold(Job(json.dumps(config), folder, tuple(sorted(config["parties"]))))
    return folder


def sessions(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "sessions").iterdir())}


def models(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted((folder / "models").rglob("*.safetensors"))
    }


def children() -> set[int]:
    """Processes that live and descend from this one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found: set[int] = set()
    while True:
        more = {p for p, up in parents.items() if up == os.getpid() or up in found} - found
        if not more:
            return found
        found |= more


def marked(words: str) -> list[str]:
    """Living processes that have these words in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            state = environ.with_name("stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z" and words.encode() in environ.read_bytes():
                found.append(environ.with_name("cmdline").read_text())
        except OSError:
            continue
    return found


def test_the_search_for_marked_processes_finds_one() -> None:
    running = subprocess.Popen(
        ["sleep", "30"], env=os.environ | {MARK: "here"}, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 10
        while not marked(f"{MARK}=here"):  # a new process shows its environment a little later
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        running.kill()
        running.wait()
    assert not marked(f"{MARK}=here")


def job_of(folder: Path, *overrides: str) -> Job:
    """Of a study, in this folder."""
    config = plain(*overrides)
    return Job(json.dumps(config), folder, tuple(sorted(config["parties"])))


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inline")
    return {
        "loans": hold(folder / "loans", *SMALL_LOANS),
        "priced": hold(folder / "priced", *PRICED),
        "heart": hold(folder / "heart", *SMALL_HEART),
    }


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hold(tmp_path_factory.mktemp("batched") / "heart", *SMALL_HEART, "engine=batched")


def test_the_small_study_tells_contracts_apart(inline: dict[str, Path]) -> None:
    """Or else equal bytes on two engines would prove little."""
    folder = RunFolder(inline["loans"])
    alone, shared = (folder.load(f"{c}-seed0") for c in ("no_sharing", "infer_sharing"))
    assert alone is not None
    assert shared is not None
    for firm, payoffs in alone[0].payoffs.items():
        assert not np.array_equal(payoffs, shared[0].payoffs[firm])


@pytest.mark.parametrize(("study", "overrides"), [("loans", SMALL_LOANS), ("heart", SMALL_HEART)])
def test_batched_comes_to_the_verdict_of_inline(
    study: str, overrides: tuple[str, ...], inline: dict[str, Path], tmp_path: Path
) -> None:
    found = hold(tmp_path / "batched", *overrides, "engine=batched")
    ours, theirs = (pd.read_csv(f / "rounds.csv") for f in (found, inline[study]))
    words = ["seed", "contract", "round", "epoch", "firm", "examples", "status"]
    pd.testing.assert_frame_equal(ours[words], theirs[words])
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=0, atol=1e-5)
    # Or else it would have been trained as inline trains.
    assert models(found) != models(inline[study])
    verdicts = [
        conclude(study_of(plain(*overrides)), RunFolder(folder))["contracts"]
        for folder in (found, inline[study])
    ]
    ours, theirs = (
        {
            (contract, firm): row["decision"]
            for contract, told in verdict.items()
            for firm, row in told["firms"].items()
        }
        for verdict in verdicts
    )
    assert ours == theirs
    if study == "loans":
        check_audit(found)


def test_batched_comes_to_the_same_bytes_whatever_it_remembers(tmp_path: Path) -> None:
    whole = hold(tmp_path / "whole", *SMALL_HEART, "engine=batched")
    engine = Batched()
    memory = engine._memories[engine.remember_mb, engine.room_mb]
    count = len(memory)
    assert count > 0
    again = hold(tmp_path / "again", *SMALL_HEART, "engine=batched")
    assert len(memory) == count
    engine.close()
    forgotten = hold(tmp_path / "forgotten", *SMALL_HEART, "engine=batched", "engine.remember_mb=0")
    assert not engine._memories
    for found in (again, forgotten):
        assert sessions(found) == sessions(whole)
        assert models(found) == models(whole)


def test_studies_that_differ_in_the_market_only_train_once(tmp_path: Path) -> None:
    engine = Batched()
    engine.close()
    words = (*SMALL_LOANS, "study.seeds=1", "engine=batched")
    first = hold(tmp_path / "first", *words)
    count = len(engine._memories[engine.remember_mb, engine.room_mb])
    other = hold(tmp_path / "other", *words, "market.C1=2")
    assert len(engine._memories[engine.remember_mb, engine.room_mb]) == count > 0
    engine.close()
    assert models(other) == models(first)
    assert sessions(other) != sessions(first)


def test_a_batched_study_that_is_gone_on_with_ends_in_the_same_bytes(tmp_path: Path) -> None:
    words = (*SMALL_HEART, "engine=batched", "engine.remember_mb=0")
    folder = hold(tmp_path / "run", *words)
    before = sessions(folder), models(folder)
    lost = [path for path in (folder / "sessions").iterdir() if "train_sharing-seed1" in path.name]
    assert lost
    for path in lost:
        path.unlink()
    Batched(remember_mb=0).hold(job_of(folder, *words))
    assert (sessions(folder), models(folder)) == before


@pytest.mark.parametrize(
    ("batching", "remedy"),
    [
        (("engine=batched",), "engine=inline"),
        (("engine=ray", "engine.workers=1", "engine.batched=true"), "engine.batched=false"),
    ],
)
def test_batches_refuse_a_meter_that_counts_the_whole_process(
    batching: tuple[str, ...], remedy: str, tmp_path: Path
) -> None:
    words = (*SMALL_HEART, *batching, "energy=codecarbon")
    job, engine, before = job_of(tmp_path, *words), build(plain(*words)["engine"]), children()
    for refused in (engine.plan, engine.hold):
        with pytest.raises(
            FedpactError, match=rf"cleveland\.energy is CodeCarbon.*Set energy=watts, or {remedy}\."
        ):
            refused(job)
    assert children() == before


@pytest.fixture(scope="module")
def ray_pool() -> Any:
    engine = RayActors()
    yield engine
    engine.close()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("study", "overrides", "workers"),
    [
        ("loans", SMALL_LOANS, 1),
        ("loans", SMALL_LOANS, 2),
        ("priced", PRICED, 2),
        ("heart", SMALL_HEART, 2),
    ],
)
def test_ray_gives_the_same_bytes_as_inline(
    study: str,
    overrides: tuple[str, ...],
    workers: int,
    inline: dict[str, Path],
    tmp_path: Path,
    ray_pool: Any,
) -> None:
    words = ("engine=ray", f"engine.workers={workers}", "engine.num_cpus=0.5")
    found = hold(tmp_path / "ray", *overrides, *words)
    assert sessions(found) == sessions(inline[study])
    assert models(found) == models(inline[study])
    if study == "loans":
        check_audit(found)


@pytest.mark.ray
@pytest.mark.parametrize(("workers", "room_mb"), [(2, "1e-9"), (2, "null"), (4, "null")])
def test_ray_with_batches_gives_the_same_bytes_as_batched(
    workers: int,
    room_mb: str,
    batched: Path,
    inline: dict[str, Path],
    tmp_path: Path,
    ray_pool: Any,
) -> None:
    words = ("engine=ray", f"engine.workers={workers}", "engine.num_cpus=0.5")
    words = (*words, "engine.batched=true", f"engine.room_mb={room_mb}")
    found = hold(tmp_path / "ray", *SMALL_HEART, *words)
    # Where there is room for no batch, all train one by one.
    expected, other = batched, inline["heart"]
    if room_mb != "null":
        expected, other = other, expected
    assert sessions(found) == sessions(expected)
    assert models(found) == models(expected)
    assert models(found) != models(other)
    told = [(folder / "messages.csv").read_bytes() for folder in (found, expected)]
    assert told[0] == told[1]


@pytest.mark.ray
def test_a_firm_that_fails_in_a_batch_harms_nobody_else(tmp_path: Path, ray_pool: Any) -> None:
    """It trains with the others, and then has no answer."""
    outcomes = []
    for batched in (True, False):
        folder = tmp_path / str(batched)
        folder.mkdir()
        crew, _, job = crew_of(
            folder, *SMALL_HEART, maker="tests.failing_firm:failing_firm", batched=batched
        )
        apps.hold_direct(job, lambda maker, arguments, crew=crew: crew)
        rows = pd.read_csv(folder / "rounds.csv")
        outcomes.append(rows[rows.contract == "train_sharing"])
    together, apart = outcomes
    words = ["seed", "round", "epoch", "firm", "examples", "status"]
    pd.testing.assert_frame_equal(together[words], apart[words])
    np.testing.assert_allclose(together.loss, apart.loss, rtol=0, atol=1e-5)
    assert set(together.status[together.firm == FAILS]) == {"excluded"}
    others = together[together.firm != FAILS]
    assert set(others.status) == {"ok"}
    assert others.firm.nunique() == 3


@pytest.mark.ray
def test_ray_adds_models_up_under_masks_to_the_same_bytes(tmp_path: Path, ray_pool: Any) -> None:
    words = (*SMALL_HEART, "contract.train_sharing.secure=true")
    here = hold(tmp_path / "inline", *words)
    there = hold(tmp_path / "ray", *words, "engine=ray", "engine.workers=2", "engine.num_cpus=0.5")
    assert sessions(here) == sessions(there)
    assert models(here) == models(there)


@pytest.mark.ray
def test_models_large_enough_for_the_object_store_arrive_whole(
    tmp_path: Path, ray_pool: Any
) -> None:
    wide = (*SMALL_HEART, "backbone=mlp", "backbone.widths=[2048]", "study.seeds=1")
    here = hold(tmp_path / "inline", *wide)
    there = hold(tmp_path / "ray", *wide, "engine=ray", "engine.num_cpus=0.5")
    sizes = [len(content) for content in models(here).values()]
    assert max(sizes) > 100_000  # from here on Ray keeps an argument in its store
    assert models(here) == models(there)
    assert sessions(here) == sessions(there)


def test_the_messages_of_inline_are_those_that_flowers_apps_would_send(
    inline: dict[str, Path], tmp_path: Path
) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    assert sessions(tmp_path) == sessions(inline["loans"])
    assert models(tmp_path) == models(inline["loans"])
    told, sent = (pd.read_csv(f / "messages.csv") for f in (inline["loans"], tmp_path))
    words = list(told.columns)
    # Only who is behind a node is not known to Flower's operator before it has said so.
    numbered = {f"node_{place:04}": name for place, name in enumerate(("lender_a", "lender_b"))}
    sent = sent.replace({"receiver": numbered})
    pd.testing.assert_frame_equal(
        *(table.sort_values(words, ignore_index=True) for table in (told, sent))
    )


@pytest.mark.ray
def test_the_messages_of_ray_are_those_of_inline(
    inline: dict[str, Path], tmp_path: Path, ray_pool: Any
) -> None:
    words = ("engine=ray", "engine.workers=2", "engine.num_cpus=0.5")
    found = hold(tmp_path / "ray", *SMALL_LOANS, *words)
    told, sent = (f / "messages.csv" for f in (inline["loans"], found))
    assert told.read_bytes() == sent.read_bytes()


def crew_of(
    folder: Path,
    *overrides: str,
    maker: str = "simulations.engines.apps:firm",
    batched: bool = False,
) -> tuple[Any, list[Any], Job]:
    """Firms of a study in two of Ray's actors, these, and the job."""
    from simulations.engines.ray_crew import RayCrew

    job = job_of(folder, *overrides)
    actors = RayActors(workers=2, num_cpus=0.5).start(2)
    arguments = (job.config, sha256(job.config), str(folder))
    return RayCrew(actors, maker, arguments, job.firms, batched), actors, job


@pytest.mark.ray
@pytest.mark.parametrize(
    ("study", "overrides", "together"),
    [("loans", SMALL_LOANS, False), ("heart", SMALL_HEART, True)],
)
def test_a_killed_actor_comes_back_and_nothing_changes(
    study: str,
    overrides: tuple[str, ...],
    together: bool,
    inline: dict[str, Path],
    batched: Path,
    tmp_path: Path,
    ray_pool: Any,
) -> None:
    import ray

    crew, actors, job = crew_of(tmp_path, *overrides, batched=together)

    class Killing:
        names, asked = crew.names, 0

        def ask(self, *questions: Any) -> Any:
            self.asked += 1
            if self.asked in (4, 11):
                ray.kill(actors[self.asked % 2], no_restart=False)
            return crew.ask(*questions)

    killing = Killing()
    apps.hold_direct(job, lambda maker, arguments: killing)
    assert killing.asked > 11
    expected = batched if together else inline[study]
    assert sessions(tmp_path) == sessions(expected)
    assert models(tmp_path) == models(expected)


@pytest.mark.ray
def test_a_firm_that_answers_too_late_is_named_and_does_not_hang_the_round(
    tmp_path: Path, ray_pool: Any
) -> None:
    from parties.exchange import Declaration, Enrol
    from simulations.engines.ray_crew import RayCrew

    actors = RayActors(workers=2, num_cpus=0.5).start(2)
    crew = RayCrew(actors, "tests.slow_firm:slow_firm", (), ("lender_a", "lender_b"))
    questions = dict.fromkeys(crew.names, Enrol(0))
    warm = crew.ask(questions, 60, False)
    assert [type(reply.answer) for reply in warm.values()] == [Declaration, Declaration]
    questions["lender_b"] = Enrol(7)
    started = time.monotonic()
    replies = crew.ask(questions, 2, False)
    assert time.monotonic() - started < 20
    assert isinstance(replies["lender_a"].answer, Declaration)
    assert (replies["lender_b"].answer, replies["lender_b"].lost) == (None, "no answer within 2 s")
    assert crew.ask({"lender_a": Enrol(0)}, 60, False)["lender_a"].answer is not None


@pytest.mark.ray
def test_a_worker_that_cannot_make_its_firm_says_why(tmp_path: Path, ray_pool: Any) -> None:
    from parties.exchange import Enrol
    from simulations.engines.ray_crew import RayCrew

    actors = RayActors(workers=2, num_cpus=0.5).start(2)
    crew = RayCrew(actors, "tests.slow_firm:no_such_firm", (), ("lender_a",))
    reply = crew.ask({"lender_a": Enrol(0)}, 60, False)["lender_a"]
    assert reply.answer is None
    assert "no_such_firm" in reply.lost


@pytest.mark.ray
def test_a_ray_of_our_own_has_no_process_that_nobody_asks_anything(ray_pool: Any) -> None:
    RayActors(workers=1, num_cpus=0.5).start(1)
    own = one_ray._up[-1]
    assert own is not None
    words = marked(own.mark.decode())
    assert any("raylet" in line for line in words)
    for spared in ("monitor.py", "log_monitor.py", "dashboard.py"):
        assert not any(spared in line for line in words), spared


@pytest.mark.ray
def test_firms_are_dealt_out_by_their_examples_and_nothing_else_changes(
    inline: dict[str, Path], tmp_path: Path, ray_pool: Any
) -> None:
    crew, _, job = crew_of(tmp_path, *SMALL_HEART)
    # In turn: cleveland and switzerland, hungary and va_long_beach.
    assert list(crew._home.values()) == [0, 1, 0, 1]
    apps.hold_direct(job, lambda maker, arguments: crew)
    # By 227, 220, 150 and 92 patients.
    dealt = {"cleveland": 0, "hungary": 1, "va_long_beach": 1, "switzerland": 0}
    assert crew._home == dealt
    assert sessions(tmp_path) == sessions(inline["heart"])


@pytest.mark.ray
def test_an_actor_sees_the_gpu_of_its_share_and_others_see_none(ray_pool: Any) -> None:
    """The GPU is declared, not there: Ray deals it out all the same."""
    import ray

    from simulations.engines.ray_crew import start_workers

    engine = RayActors(workers=2, num_cpus=0.5, num_gpus=0.5)
    try:
        workers = [*engine.start(2), *start_workers(1, 0, 0)]
        seen = [
            w.__ray_call__.remote(lambda _: os.environ["CUDA_VISIBLE_DEVICES"]) for w in workers
        ]
        assert ray.get(seen) == ["0", "0", ""]
        assert ray.available_resources().get("GPU", 0) == 0
        engine.check_cluster(2)
        with pytest.raises(
            FedpactError, match=r"2 Ray actors ask for .* 0\.6 GPUs each.* are 1 such"
        ):
            RayActors(workers=2, num_cpus=0.5, num_gpus=0.6).check_cluster(2)
        assert not ray.is_initialized()
    finally:
        RayActors._pools.clear()  # they are gone with Ray
        ray.shutdown()


@pytest.mark.flower
@pytest.mark.timeout(400)
def test_flowers_own_simulation_agrees_and_leaves_nothing_running(
    inline: dict[str, Path], tmp_path: Path
) -> None:
    RayActors().close()
    found = hold(tmp_path / "flower", *SMALL_LOANS, "engine=flower")
    # Orphans are nobody's children: every process of the run carries this mark in its environment.
    assert not marked(f"{MARK}=")
    check_audit(found)
    for name in RunFolder(inline["loans"]).held():
        ours, theirs = (RunFolder(f).load(name) for f in (inline["loans"], found))
        assert ours is not None
        assert theirs is not None
        for firm, payoffs in ours[0].payoffs.items():
            assert theirs[0].payoffs[firm].mean() == pytest.approx(payoffs.mean(), abs=1e-4)
    assert not (found / "flower").exists()


@pytest.mark.ray
def test_ray_is_gone_when_the_command_is_told_to_end(tmp_path: Path) -> None:
    # Ray's sockets lie below its folder, and their paths may not be long.
    room = Path(tempfile.mkdtemp(prefix="fp-"))
    running = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "simulations",
            "engine=ray",
            "engine.num_cpus=0.5",
            f"run_dir={tmp_path / 'run'}",
        ],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "RAY_TMPDIR": str(room)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("sessions/*.sha256")):
        assert running.poll() is None, running.stderr
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "resume" in errors
    left = []
    for environ in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = environ.read_bytes()
            session = environ.with_name("stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(session[3]) == running.pid and session[0] != "Z":
            left.append(words)
    assert not left
    room.rmdir()  # which an empty folder only suffers


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("engine=ray", "engine.workers=0"), "engine.workers is 0"),
        (("engine=ray", "engine.num_cpus=-1"), "engine.num_cpus"),
        (("engine=ray", "engine.num_cpus=inf"), "engine.num_cpus is inf"),
        (("engine=ray", "engine.num_gpus=1e-5"), "legal is 0, or a number >= 0.0001"),
        (("engine=ray", "engine.num_gpus=1.5"), "num_gpus is 1.5; legal is a share of one GPU"),
        (("engine=flower", "engine.num_cpus=0.5"), "whole CPUs"),
        (("engine=ray", "engine.batched=1"), "engine.batched is 1; legal are true and false"),
        (("engine=ray", "engine.room_mb=5"), "room_mb is 5 and engine.batched false: .* nothing"),
        (("engine=ray", "engine.batched=true", "engine.room_mb=0"), "engine.room_mb is 0"),
        (("engine=ray", "engine.address=10.0.0.1"), "'10.0.0.1'; legal are null .* HOST:PORT"),
        (("engine=ray", "engine.address=ray://h:10001"), "as `ray start --head` prints it"),
        (("engine=batched", "engine.room_mb=0"), "engine.room_mb is 0"),
        (("engine=batched", "engine.room_mb=many"), "engine.room_mb is 'many'"),
        (("engine=batched", "engine.remember_mb=-1"), "engine.remember_mb is -1"),
    ],
)
def test_an_impossible_engine_is_refused(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        build(plain(*words)["engine"])


@pytest.mark.parametrize(
    "words",
    [
        ("engine=ray", "engine.num_cpus=512"),
        ("engine=ray", "engine.num_gpus=512", "training.device=auto"),
        ("engine=flower", "engine.num_cpus=512"),
        ("engine=flower", "engine.num_gpus=512", "training.device=auto"),
    ],
)
def test_more_than_the_machine_has_is_refused_before_anything_starts(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    before = children()
    with pytest.raises(FedpactError, match="this machine has"):
        hold(tmp_path / "x", *SMALL_LOANS, *words)
    assert children() == before


def test_too_many_actors_are_told_how_many_there_may_be() -> None:
    room = len(os.sched_getaffinity(0))
    engine = RayActors(workers=64, num_cpus=room / 3 + 0.01)
    told = r"^4 Ray actors \(of 64 that are asked for\) .* legal are 2 such actors or fewer\. Set "
    with pytest.raises(FedpactError, match=told + r"engine\.workers=2, lower engine\.num_cpus, or"):
        engine.plan(job_of(Path(), *SMALL_HEART))


def test_a_plan_says_where_batches_gain_nothing() -> None:
    job = job_of(Path(), *SMALL_HEART)
    for workers, told in ((2, "CPUs, side by side where that can be"), (4, "gains nothing")):
        (line,) = RayActors(workers=workers, num_cpus=0, batched=True).plan(job)
        assert line.endswith(told)


def job_on(device: str) -> Job:
    """Of one firm, which trains there."""
    return Job(json.dumps({"parties": {"a": {"training": {"device": device}}}}), Path(), ("a",))


def test_flower_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "gpus_here", lambda: 0)
    with pytest.raises(FedpactError, match=r"no firm could run.* Lower them"):
        FlowerSimulation(num_cpus=512).plan(job_on("cpu"))
    with pytest.raises(FedpactError, match=r"no firm could run.* Set engine\.num_gpus=0"):
        FlowerSimulation(num_gpus=0.5).plan(job_on("auto"))


def test_a_gpu_that_an_actor_would_not_see_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    before = children()
    with pytest.raises(FedpactError, match=r"lender_a\.training\.device is 'cuda'.* sees 0 GPUs"):
        hold(tmp_path / "x", *SMALL_LOANS, "engine=ray", "engine.workers=1", "training.device=cuda")
    assert children() == before
    with pytest.raises(FedpactError, match=r"num_gpus=0\.5 sees 1 GPUs.*training\.device=auto"):
        check_share({"a": "cuda:1"}, 0.5)
    with pytest.raises(FedpactError, match=r"num_gpus is 0\.5, and all firms train on CPUs"):
        check_share({"a": "cpu"}, 0.5)
    assert check_share({"a": "cuda:1", "b": "auto"}, 2) == "GPUs"
    assert check_share({"a": "cpu", "b": "auto"}, 2) == "CPUs and GPUs"
    assert check_share({"a": "cpu", "b": "auto"}, 0) == "CPUs"


def test_firms_are_told_apart_by_name_not_by_node(tmp_path: Path) -> None:
    config = run_config(tmp_path, *SMALL_LOANS)
    assert firms_of(config) == ["lender_a", "lender_b"]
    swapped = contexts(config)
    for context in swapped.values():
        other = {"lender_a": "lender_b", "lender_b": "lender_a"}
        context.node_config["party"] = other[str(context.node_config["party"])]
    hold_on(InlineGrid(apps.client, swapped), config)
    straight = run_config(tmp_path / "straight", *SMALL_LOANS)
    hold_on(InlineGrid(apps.client, contexts(straight)), straight)
    assert sessions(tmp_path) == sessions(tmp_path / "straight")
