"""A firm's own file, firm.yaml: where its data are, and what its desk refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

import yaml

from parties.datasets import Dataset
from parties.datasets.own import OwnData
from parties.desk.policy import Policy
from parties.exchange import FedpactError
from simulations.mistakes import did_you_mean


@final
@dataclass(frozen=True)
class FirmFile:
    """What a firm says in its own file; nobody else reads it.

    Args:
        firm: its name in the study.
        data: file that describes its own data, relative to this one; None: data that ship with
            Fedpact, as the study says.
        device: torch device that it trains on; None: as the study says.
        policy: what its desk refuses, whatever a contract says.
    """

    firm: str
    data: str | None = None
    device: str | None = None
    policy: Policy = field(default_factory=Policy)

    def objection_to(self, dataset: Dataset) -> str:
        """Why `data` is not what the study says that the firm holds, or ""."""
        if self.data is None and isinstance(dataset, OwnData):
            return (
                "is null, and the study asks for your own data; legal is the name of a file that "
                "describes them. Write `data: data.yaml`."
            )
        if self.data is not None and not isinstance(dataset, OwnData):
            return (
                f"is {self.data}, and the study gives this firm {type(dataset).__name__}; legal is "
                "null, or a study with dataset=own for this firm. Agree on one."
            )
        return ""


def read_firm_file(path: Path, firm: str) -> FirmFile:
    """A firm's own file, checked.

    Args:
        firm: whose it must be.

    Raises:
        FedpactError: it cannot be read, says something that it cannot, or is another firm's.
    """
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise FedpactError(
            f"{path} cannot be read ({fault}); legal is YAML with the fields "
            f"{', '.join(f.name for f in fields(FirmFile))}. Write it as the deployment had it."
        ) from fault
    own = _known(said, FirmFile, f"{path}")
    policy = _known(own.pop("policy", None) or {}, Policy, f"{path}: policy")
    for name in ("firm", "data", "device"):
        value = own.get(name)
        if not isinstance(value, str | None) or (name == "firm" and not value):
            raise FedpactError(
                f"{path}: {name} is {value!r}; legal is a text"
                f"{'' if name == 'firm' else ', or null'}. Correct it."
            )
    found = FirmFile(**own, policy=Policy(**policy))
    if found.firm != firm:
        raise FedpactError(
            f"{path} is of {found.firm}, not of {firm}; legal is the folder of {firm}. Name the "
            "other firm, or the other folder."
        )
    return found


def _known(said: Any, kind: type, where: str) -> dict[str, Any]:
    legal = [f.name for f in fields(kind)]
    if not isinstance(said, Mapping):
        raise FedpactError(
            f"{where} is {type(said).__name__}; legal are the fields {', '.join(legal)}. Write "
            "them."
        )
    for name in said:
        if name not in legal:
            raise FedpactError(f"{where} has the field {name!r}. {did_you_mean(str(name), legal)}")
    return dict(said)
