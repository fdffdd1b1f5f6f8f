"""Where everything of a deployment lies, and what it is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import final

from parties.exchange import FedpactError

README, STUDY, DIGEST = "README.md", "study.json", "study.sha256"
COMPOSE, DOCKERFILE, SOURCE = "compose.yaml", "Dockerfile", "source"
CLOSED = ("operator",)  # no firm's name: its key would be taken for another's


@final
class OperatorFolder:
    """What the neutral operator holds: no data, no model of a firm but what a contract shares."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readme, self.study, self.digest = path / README, path / STUDY, path / DIGEST
        self.authority, self.authority_key = path / "ca.crt", path / "ca.key"
        self.certificate, self.certificate_key = path / "server.crt", path / "server.key"
        self.signing_key, self.signing_pub = path / "sign.key", path / "sign.pub"
        self.nodes = path / "nodes"  # <firm>.pub: whose node is heard; <firm>.id: its number there
        self.keys = path / "keys"  # <firm>.pub: whose signature counts
        self.app = path / "app"
        # while it runs
        self.database, self.flower, self.results = path / "state.db", path / "flwr", path / "run"


@final
class FirmFolder:
    """What one firm holds, and nobody else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readme, self.study, self.digest = path / README, path / STUDY, path / DIGEST
        self.settings = path / "firm.yaml"
        self.authority = path / "ca.crt"
        self.node_key, self.node_pub = path / "node.key", path / "node.pub"
        self.signing_key, self.signing_pub = path / "sign.key", path / "sign.pub"
        self.keys = path / "keys"  # operator.pub, <other firm>.pub
        # while it runs
        self.socket, self.log, self.memory = path / "desk.sock", path / "desk.log", path / "memory"
        self.audit = path / "audit.jsonl"  # and audit.head beside it


def read_study(folder: FirmFolder | OperatorFolder) -> tuple[str, str]:
    """The study as one line of JSON, and the sha256 that was agreed on.

    Raises:
        FedpactError: one of the two files cannot be read.
    """
    try:
        text = folder.study.read_text(encoding="utf-8")
        return text, folder.digest.read_text(encoding="utf-8").split()[0]
    except (OSError, UnicodeDecodeError, IndexError) as fault:
        raise FedpactError(
            f"{folder.study} or {folder.digest.name} beside it cannot be read ({fault}); legal are "
            "the two files of the deployment. Ask the operator for both again, and compare the "
            "sha256 by telephone."
        ) from fault


@final
class Deployment:
    """The whole folder, as it is written; afterwards each role has its part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readme, self.study, self.digest = path / README, path / STUDY, path / DIGEST
        self.place = path / "place.json"  # host, port and days
        self.compose, self.dockerfile = path / COMPOSE, path / DOCKERFILE
        self.source = path / SOURCE
        self.operator = OperatorFolder(path / "operator")

    def firm(self, name: str) -> FirmFolder:
        """The part of one firm."""
        return FirmFolder(self.path / "firms" / name)


def find_firm(name: str, folder: Path | None = None) -> FirmFolder:
    """The folder of a firm: the one given, else deploy/firms/NAME, firms/NAME or this one.

    Raises:
        FedpactError: it is none of a firm.
    """
    check_firm_name(name)
    likely = [Path("deploy/firms") / name, Path("firms") / name, Path()]
    for place in [folder] if folder else likely:
        found = FirmFolder(place.resolve())
        if found.settings.is_file():
            return found
    tried = folder or ", ".join(map(str, likely))
    raise FedpactError(
        f"There is no firm.yaml in {tried}; legal is the folder of {name} that the consortium gave "
        f"you. Go there, or name it with --folder."
    )


def find_operator(folder: Path | None = None) -> OperatorFolder:
    """The folder of the operator: the one given, else deploy/operator, operator or this one.

    Raises:
        FedpactError: it is not the operator's.
    """
    likely = [Path("deploy/operator"), Path("operator"), Path()]
    for place in [folder] if folder else likely:
        found = OperatorFolder(place.resolve())
        if found.nodes.is_dir():
            return found
    raise FedpactError(
        f"There is no nodes/ in {folder or ', '.join(map(str, likely))}; legal is the operator's "
        "folder of a deployment. Go there, or name it with --folder."
    )


def check_firm_name(name: str) -> None:
    """A firm's name is the name of its files, too."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{1,62}", name) or name in CLOSED:
        raise FedpactError(
            f"A firm is called {name!r}; in a deployment legal are 2 to 63 letters, digits, '_' "
            f"and '-', and not {', '.join(CLOSED)}: files and keys have its name. Rename it in "
            "your parties=... file."
        )
