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
from simulations.build import build
from simulations.conclude import conclude
from simulations.engines import Engine, Job, apps
from simulations.engines.batched import Batched
from simulations.engines.flower_run import MARK
from simulations.engines.grid import InlineGrid
from simulations.engines.ray_actors import RayActors
from simulations.engines.ray_grid import LARGE
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import (
    SMALL_HEART,
    SMALL_LOANS,
    RecordingGrid,
    contexts,
    firms_of,
    hold_on,
    plain,
    run_config,
)
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


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inline")
    return {
        "loans": hold(folder / "loans", *SMALL_LOANS),
        "priced": hold(folder / "priced", *PRICED),
        "heart": hold(folder / "heart", *SMALL_HEART),
    }


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
    config = plain(*words)
    Batched(remember_mb=0).hold(Job(json.dumps(config), folder, tuple(sorted(config["parties"]))))
    assert (sessions(folder), models(folder)) == before


def test_batched_refuses_a_meter_that_counts_the_whole_process(tmp_path: Path) -> None:
    words = (*SMALL_HEART, "engine=batched", "energy=codecarbon")
    with pytest.raises(FedpactError, match=r"cleveland\.energy is CodeCarbon.*Use energy=watts"):
        hold(tmp_path / "run", *words)


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
    assert max(sizes) > LARGE
    assert models(here) == models(there)
    assert sessions(here) == sessions(there)


@pytest.mark.ray
def test_the_messages_on_rays_wire_are_those_of_inline(tmp_path: Path, ray_pool: Any) -> None:
    from simulations.engines.ray_grid import RayGrid

    logs = []
    for name in ("inline", "ray"):
        config = run_config(tmp_path / name, *SMALL_LOANS, "study.seeds=1")
        firms = contexts(config)
        names = {node: str(c.node_config["party"]) for node, c in firms.items()}
        if name == "ray":
            actors = RayActors(workers=2, num_cpus=0.5).start(2)
            inner: Any = RayGrid(actors, "simulations.engines.apps:client", firms)
        else:
            inner = InlineGrid(apps.client, firms)
        grid = RecordingGrid(inner, names)
        hold_on(grid, config)
        logs.append(sorted((s, r, p.kind, p.text, sorted(p.arrays)) for s, r, p in grid.log))
    assert logs[0] == logs[1]


@pytest.mark.ray
def test_a_killed_actor_comes_back_and_nothing_changes(
    inline: dict[str, Path], tmp_path: Path, ray_pool: Any
) -> None:
    import ray

    config = run_config(tmp_path, *SMALL_LOANS)
    actors = RayActors(workers=2, num_cpus=0.5).start(2)
    from simulations.engines.ray_grid import RayGrid

    class Killing(RayGrid.__mro__[1]):  # type: ignore[misc]
        def __init__(self, inner: RayGrid) -> None:
            super().__init__(inner.get_node_ids())
            self.inner, self.asked = inner, 0

        def push_messages(self, messages: Any) -> list[str]:
            raise AssertionError

        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            self.asked += 1
            if self.asked in (4, 11):
                ray.kill(actors[self.asked % 2], no_restart=False)
            return self.inner.send_and_receive(messages, timeout=timeout)

    hold_on(Killing(RayGrid(actors, "simulations.engines.apps:client", contexts(config))), config)
    assert sessions(tmp_path) == sessions(inline["loans"])


@pytest.mark.ray
def test_a_firm_whose_worker_dies_is_named_and_does_not_hang_the_round(
    tmp_path: Path, ray_pool: Any
) -> None:
    """A straggler is left out when the wait is over."""
    from flwr.app import Message

    from parties.exchange import Enrol, pack
    from parties.wire import write_record
    from simulations.engines.ray_grid import RayGrid

    config = run_config(tmp_path, *SMALL_LOANS)
    actors = RayActors(workers=2, num_cpus=0.5).start(2)
    grid = RayGrid(actors, "tests.slow_app:client", contexts(config))
    content = write_record(pack(Enrol(0)))
    grid.send_and_receive([Message(content, n, "query") for n in (1000, 1001)], timeout=60)
    started = time.monotonic()
    replies = grid.send_and_receive(
        [Message(content, n, "evaluate") for n in (1000, 1001)], timeout=2
    )
    assert time.monotonic() - started < 20
    assert [r.metadata.src_node_id for r in replies] == [1000]
    late = grid.send_and_receive([Message(content, 1000, "query")], timeout=60)
    assert len(late) == 1


@pytest.mark.ray
def test_gpu_shares_are_asked_of_ray(ray_pool: Any) -> None:
    import ray

    RayActors().close()
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        from simulations.engines.ray_grid import start_workers

        workers = start_workers(2, 0.5, 0.5)
        ray.get([w.__ray_ready__.remote() for w in workers])
        assert ray.available_resources().get("GPU", 0) == 0
        for worker in workers:
            ray.kill(worker)
    finally:
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
        (("engine=flower", "engine.num_cpus=0.5"), "whole CPUs"),
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
        ("engine=ray", "engine.num_gpus=512"),
        ("engine=flower", "engine.num_cpus=512"),
    ],
)
def test_more_than_the_machine_has_is_refused_before_anything_starts(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    before = children()
    with pytest.raises(FedpactError, match="this machine has"):
        hold(tmp_path / "x", *SMALL_LOANS, *words)
    assert children() == before


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
