"""One thread, and nothing left running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _frozen_models_are_kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models that tests freeze do not land among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPACT_FROZEN", str(tmp_path_factory.mktemp("frozen")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _engines_are_stopped() -> Iterator[None]:
    """Ray is shut down even when a test fails."""
    yield
    from simulations.engines.ray_actors import RayActors

    RayActors().close()
