"""One thread, and nothing left running."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from simulations.__main__ import main
from tests.checks import Told

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _frozen_models_are_kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models that tests freeze do not land among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPACT_FROZEN", str(tmp_path_factory.mktemp("frozen")))
        yield


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Told]:
    """The command in this process (a new one takes seconds to start), in an empty folder."""

    def run(*words: str) -> Told:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fedpact", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        handlers, code = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}, 0
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which is put back
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Told(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session", autouse=True)
def _engines_are_stopped() -> Iterator[None]:
    """Ray is shut down even when a test fails."""
    yield
    from simulations.engines.ray_actors import RayActors

    RayActors().close()
