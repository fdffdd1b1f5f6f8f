"""Campaigns: measurements that are no study, since nobody trades and nothing is signed.

One file each; `Campaign` is the interface. `experiment=NAME` chooses one by `campaign`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from simulations.results import RunFolder


class Campaign(ABC):
    """A series of measurements whose tables lie in a run folder."""

    @abstractmethod
    def plan(self) -> list[str]:
        """What it would do, a line each. Refuses what cannot be, before anything is measured.

        Raises:
            FedpactError: a file or package that it needs is not there.
        """

    @abstractmethod
    def run(self, folder: RunFolder) -> list[str]:
        """Measure; put tables on disk as they grow and `report.html` last.

        A folder with a part of the measurements is gone on with: what is in it is not measured
        again.

        Returns:
            What a person should read on the screen, a line each.
        """
