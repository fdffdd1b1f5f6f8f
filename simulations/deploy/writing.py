"""`python -m simulations.deploy experiment=NAME out=FOLDER`: the folder of a deployment."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, final

import hydra
from jinja2 import Environment, PackageLoader, StrictUndefined
from omegaconf import DictConfig, OmegaConf

from parties.datasets import Dataset
from parties.datasets.own import OwnData
from parties.exchange import FedpactError
from parties.reuse.signing import make_keys
from server.market import OwnCases
from simulations.build import as_text, sha256
from simulations.deploy.bundle import write_bundle
from simulations.deploy.certificates import Authority
from simulations.deploy.key import make_firm_keys
from simulations.deploy.layout import Deployment, FirmFolder, OperatorFolder, check_firm_name
from simulations.source import copy_code
from simulations.study import Study, study_of
from simulations.words import spelled_out

PAPERS = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE")
_OWN_CASES = f"{OwnCases.__module__}.{OwnCases.__qualname__}"
ONE_STUDY = ("sweep", "campaign", "compare", "resume", "run_dir", "dry_run")


@final
@dataclass(frozen=True)
class Place:
    """Where the deployment is written, and where firms will reach the operator.

    Args:
        out: folder to write; there must be none yet.
        host: name or address of the operator's machine, as firms reach it.
        port: its one open port. The next one is for the operator alone, on its machine.
        days: how long the certificates are good.
    """

    out: str = ""
    host: str = "localhost"
    port: int = 9092
    days: int = 365

    def __post_init__(self) -> None:
        if not self.out:
            raise FedpactError(
                "out is missing; legal is the folder to write, for example out=deploy/. Add it."
            )
        if not _is_host(self.host):
            raise FedpactError(
                f"host is {self.host!r}; legal is the name or the address of the operator's "
                "machine, without a port: host=operator.example.org port=9092"
            )
        for name, most in (("port", 60_000), ("days", 3650)):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= most:
                raise FedpactError(
                    f"{name} is {value!r}; legal are whole numbers from 1 to {most}. "
                    f"For example {name}={getattr(Place, name)}."
                )

    def said(self) -> dict[str, str | int]:
        """What a deployment cannot change afterwards: host, port and days."""
        return {"host": self.host, "port": self.port, "days": self.days}

    @property
    def address(self) -> str:
        """host:port, as Flower takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def write(words: Sequence[str]) -> int:
    """Compose and check the study, write everything, say what is next."""
    place, overrides = place_of(words)
    config = _composed(overrides)
    write_deployment(config, place)
    folder = Deployment(Path(place.out))
    digest = folder.digest.read_text().split()[0]
    firms = sorted(config["parties"])
    lines = [
        f"study    {config['study']['name']}, {len(firms)} firms: {', '.join(firms)}",
        f"sha256   {digest}",
        f"operator {place.address} (control: 127.0.0.1:{place.port + 1})",
        f"Read {folder.operator.readme}; give each firm its folder in {folder.path / 'firms'}",
        str(folder.path.resolve()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def digest_of(overrides: Sequence[str]) -> str:
    """sha256 of the study that a deployment with these overrides would hold."""
    return sha256(_settled_at_home(_composed(overrides)))


def _settled_at_home(config: DictConfig) -> str:
    """The study as one line of JSON: nobody but the firms knows what clients turn out to be."""
    if config["market"]["_target_"] != _OWN_CASES:
        config["study"]["settles"] = "firms"
    return as_text(config)


def write_deployment(config: DictConfig, place: Place) -> None:
    """Write the folder `place.out` whole, or nothing.

    Args:
        config: the composed configuration of one study.

    Raises:
        FedpactError: the study is none that can be held, or the folder exists.
    """
    text = _settled_at_home(config)
    study = study_of(json.loads(text), away=True)
    if study.at_hand:
        study = study_of(json.loads(text))  # with the data, more can be checked
    for name in study.names:
        check_firm_name(name)
    out = Path(place.out).absolute()
    if out.exists() or out.is_symlink():
        raise FedpactError(
            f"out is {place.out}, which exists, perhaps with keys that firms use; legal is a new "
            f"folder. Name another, or move it away: mv {place.out.rstrip('/')} "
            f"{place.out.rstrip('/')}.old"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _fill(Deployment(made), study, text, place)
        made.chmod(0o755)
        made.rename(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _fill(folder: Deployment, study: Study, text: str, place: Place) -> None:
    """Everything, into a folder that nobody sees yet."""
    digest = sha256(text)
    pages = _Pages(study, digest, place)
    operator = folder.operator
    for made in (operator.path, operator.nodes, operator.keys):
        made.mkdir(parents=True)
    operator.path.chmod(0o700)
    authority = Authority(study.name, place.days)
    authority.write(operator.authority, operator.authority_key)
    authority.write_server(operator.certificate, operator.certificate_key, place.host)
    make_keys(operator.path, operator.signing_key.stem)
    write_bundle(operator.app, text)
    for name in ("superlink.sh", "register.sh", "run.sh", "stop.sh"):
        pages.write(operator.path / name, f"operator_{name}")
    pages.write(operator.readme, "operator_README.md")
    for number, name in enumerate(study.names):
        _fill_firm(folder, name, number, study.firms[name].dataset, pages)
    for name in study.names:  # now that all keys are made
        keys = folder.firm(name).keys
        keys.mkdir()
        shutil.copy(operator.signing_pub, keys / "operator.pub")
        for other in study.names:
            if other != name:
                shutil.copy(folder.firm(other).signing_pub, keys / f"{other}.pub")
    parts: list[Deployment | OperatorFolder | FirmFolder] = [folder, operator]
    for part in (*parts, *map(folder.firm, study.names)):
        part.study.write_text(text, encoding="utf-8")  # no newline: its sha256 is the study's
        part.digest.write_text(f"{digest}  {part.study.name}\n", encoding="utf-8")
    folder.place.write_text(json.dumps(place.said()) + "\n", encoding="utf-8")
    pages.write(folder.readme, "README.md")
    pages.write(folder.compose, "compose.yaml")
    pages.write(folder.dockerfile, "Dockerfile")
    _copy_source(folder.source)


def _fill_firm(folder: Deployment, name: str, number: int, dataset: Dataset, pages: _Pages) -> None:
    firm = folder.firm(name)
    firm.path.mkdir(parents=True)
    firm.path.chmod(0o700)
    make_firm_keys(firm)
    shutil.copy(folder.operator.authority, firm.authority)
    shutil.copy(firm.node_pub, folder.operator.nodes / f"{name}.pub")
    shutil.copy(firm.signing_pub, folder.operator.keys / f"{name}.pub")
    # On one machine (a trial) every node needs a port of its own.
    own = {
        "firm": name,
        "node_port": pages.place.port + 2 + number,
        "data": "data.yaml" if isinstance(dataset, OwnData) else "null",
    }
    pages.write(firm.settings, "firm.yaml", own)
    for script in ("check.sh", "desk.sh", "supernode.sh", "stop.sh"):
        pages.write(firm.path / script, f"firm_{script}", own)
    pages.write(firm.readme, "firm_README.md", own)


@final
class _Pages:
    """Writes texts from templates: scripts, settings, pages of instructions."""

    def __init__(self, study: Study, digest: str, place: Place) -> None:
        self.place = place
        self._templates = Environment(
            loader=PackageLoader("simulations.deploy"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # nothing of it is HTML
        )
        until = datetime.now(UTC) + timedelta(days=place.days)
        self._facts: dict[str, Any] = {
            "study": study.name,
            "digest": digest,
            "firms": study.names,
            "seeds": len(study.seeds),
            "address": place.address,
            "host": place.host,
            "port": place.port,
            "control_port": place.port + 1,
            "until": f"{until:%Y-%m-%d}",
            "leaves": {
                name: contract.terms(study.strategy.rounds).operator_sees(
                    study.market.clients, study.tells
                )
                for name, contract in study.contracts.items()
            },
        }

    def write(self, path: Path, template: str, more: dict[str, Any] | None = None) -> None:
        """One text; a script may be started."""
        text = self._templates.get_template(template).render(self._facts | (more or {}))
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".sh":
            path.chmod(0o755)


def _copy_source(target: Path) -> None:
    """The code to install: what every role runs, and can read."""
    root = Path(__file__).resolve().parents[2]
    absent = [name for name in PAPERS if not (root / name).is_file()]
    if absent:
        raise FedpactError(
            f"{root} holds no {', '.join(absent)}, so this Fedpact cannot give its own source to "
            "the firms. Run the command from a checkout: pip install -e ."
        )
    copy_code(target)
    for name in PAPERS:
        shutil.copy(root / name, target / name)


def place_of(words: Sequence[str]) -> tuple[Place, list[str]]:
    """Where to write, and the words that are Hydra's."""
    place: dict[str, Any] = {}
    rest = []
    kinds = {field.name: type(field.default) for field in fields(Place)}
    for word in words:
        key, _, value = word.partition("=")
        if key not in kinds:
            rest.append(word)
        elif kinds[key] is int and re.fullmatch(r"\d{1,9}", value):
            place[key] = int(value)
        else:
            place[key] = value
    return replace(Place(out="."), **({"out": ""} | place)), rest


def _composed(overrides: Sequence[str]) -> DictConfig:
    words = spelled_out(overrides)
    flags = [word for word in words if word.startswith("-")]
    if flags:
        raise FedpactError(
            f"{flags[0]} is no override; legal are key=value words, as of fedpact. "
            "See python -m simulations.deploy --help"
        )
    with hydra.initialize_config_module("conf", version_base="1.3"):
        config = hydra.compose("config", words)
    named = [key for key in ONE_STUDY if OmegaConf.select(config, key)]
    if named:
        raise FedpactError(
            f"{named[0]} is set; a deployment holds one study, and its folder is out=... Leave it "
            "out."
        )
    return config


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        return len(text) <= 253 and bool(re.fullmatch(rf"{label}(\.{label})*", text))
    return True
