"""Results on disk, written as they happen: a run folder is the record of one study."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from parties.exchange import Array, FedpactError, Weights
from parties.files import digest, read_marked, write_marked, write_whole
from server.outcome import Outcome, Progress, Summary
from server.strategies import State

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("fedpact")


@final
class RunFolder:
    """The folder of one run.

    config.yaml, provenance.json, rounds.csv, messages.csv, payoffs.csv, verdict.json, report.html,
    run.log, models/ (safetensors with manifest.json), sessions/ (one checked file a session).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sessions = path / "sessions"
        self.models = path / "models"

    # ----------------------------------------------------------------------------- opening

    def start(self, config: DictConfig, resumed: bool, origin: Mapping[str, Any]) -> None:
        """Make the folder, and put in it where the run comes from and its configuration.

        The configuration comes last: a folder that has one has all that is needed to go on.

        Raises:
            FedpactError: it holds another run, which is not to be resumed.
        """
        if (self.path / "config.yaml").exists() and not resumed:
            raise FedpactError(
                f"{self.path} already holds a run. Go on with it by resume={self.path}, or choose "
                "another folder with run_dir=..."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        if not (resumed and (self.path / "provenance.json").exists()):
            self.write_json("provenance.json", origin)
        text = OmegaConf.to_yaml(config, resolve=True)
        write_whole(self.path / "config.yaml", text.encode())

    @contextmanager
    def lock(self, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the folder for one run at a time.

        Args:
            wait_s: how long to wait for another run to let go of it.

        Raises:
            FedpactError: another run holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            deadline = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as fault:
                    if time.monotonic() >= deadline:
                        raise FedpactError(
                            f"{self.path} is in use by another run. Wait for it, or choose another "
                            "folder with run_dir=..."
                        ) from fault
                time.sleep(0.2)
            yield

    # ---------------------------------------------------------------------------- sessions

    def file(self, outcome: Outcome) -> None:
        """Put one finished session on disk: its models first, then the session, then its hash."""
        name = f"{outcome.contract}-seed{outcome.seed}"
        folder = self.models / outcome.contract / f"seed{outcome.seed}"
        hashes = {}
        for model, weights in sorted(outcome.models.items()):
            content = save({k: np.asarray(v, order="C") for k, v in weights.arrays.items()})
            write_whole(folder / f"{model}.safetensors", content)
            hashes[f"{outcome.contract}/seed{outcome.seed}/{model}.safetensors"] = digest(content)
        arrays, facts = _split_outcome(outcome)
        facts["models"] = hashes
        content = save(arrays, metadata={"session": json.dumps(facts, sort_keys=True)})
        write_whole(self.sessions / f"{name}.safetensors", content)
        write_whole(self.sessions / f"{name}.sha256", f"{digest(content)}\n".encode())
        (self.sessions / f"{name}.progress").unlink(missing_ok=True)

    def load(self, name: str) -> tuple[Outcome, dict[str, str]] | None:
        """A filed session and its models' hashes; None if it is not there, or not whole."""
        path, mark = self.sessions / f"{name}.safetensors", self.sessions / f"{name}.sha256"
        if not path.exists() or not mark.exists():
            return None
        if digest(path.read_bytes()).encode() != mark.read_bytes().strip():
            log.warning("%s does not have the sha256 in %s: held again", path, mark.name)
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()["session"])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as fault:
            log.warning("%s cannot be read (%s): held again", path, fault)
            return None
        for model, sha in facts["models"].items():
            stored = self.models / model
            if not stored.exists() or digest(stored.read_bytes()) != sha:
                log.warning("%s is missing or changed: its session is held again", stored)
                return None
        return _join_outcome(arrays, facts), facts["models"]

    def keep(self, name: str, progress: Progress) -> None:
        """Put on disk what a session has come to, whole, in the place of what it had come to."""
        state, arrays = progress.state, dict[str, Array]()
        facts: dict[str, Any] = {
            "turn": state.turn,
            "declined": dict(progress.declined),
            "excluded": dict(progress.excluded),
            "passes": dict(progress.passes),
            "riders": list(progress.riders),
            "memory": {key: sorted(tensors) for key, tensors in state.memory.items()},
        }
        for key, weights in (("start", state.start), ("published", state.published)):
            if weights is not None:
                facts[key] = weights.examples
                arrays |= {f"{key}|{k}": v for k, v in weights.arrays.items()}
                arrays |= {f"{key}.card|{k}": v for k, v in (weights.card or {}).items()}
        for key, tensors in state.memory.items():
            arrays |= {f"memory|{key}|{k}": v for k, v in tensors.items()}
        content = save(
            {k: np.asarray(v, order="C") for k, v in arrays.items()},  # 0-d arrays stay 0-d
            metadata={"progress": json.dumps(facts, sort_keys=True)},
        )
        write_marked(self.sessions / f"{name}.progress", content)

    def progress(self, name: str) -> Progress | None:
        """What an interrupted session had come to; None if it is not there, or not whole."""
        path = self.sessions / f"{name}.progress"
        if not path.exists():
            return None
        content = read_marked(path)
        if content is None:
            log.warning("%s is damaged: the session is held from its first round", path)
            return None
        facts, arrays = read_safetensors(content, "progress")

        def weights(key: str) -> Weights | None:
            if key not in facts:
                return None
            found, card = (
                {k.split("|", 1)[1]: v for k, v in arrays.items() if k.startswith(f"{part}|")}
                for part in (key, f"{key}.card")
            )
            return Weights(found, facts[key], card=card or None)

        memory = {
            key: {k: arrays[f"memory|{key}|{k}"] for k in tensors}
            for key, tensors in facts["memory"].items()
        }
        start, published = weights("start"), weights("published")
        if start is not None and published is not None and same(start, published):
            published = start  # as it was: one model, not two that are equal
        return Progress(
            State(facts["turn"], start, published, memory),
            declined=facts["declined"],
            excluded=facts["excluded"],
            passes=facts["passes"],
            riders=tuple(facts["riders"]),
        )

    def held(self) -> set[str]:
        """Names of the sessions on file."""
        return {mark.stem for mark in self.sessions.glob("*.sha256")}

    # ------------------------------------------------------------------------------ tables

    def write_json(self, name: str, value: object) -> None:
        """One JSON file, indented, with keys in the order given; not-a-number becomes null."""
        text = json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"
        write_whole(self.path / name, text.encode())

    def read_json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text())

    def manifest(self, hashes: Mapping[str, str]) -> str:
        """Write models/manifest.json; returns the one sha256 that stands for all models."""
        ordered = dict(sorted(hashes.items()))
        whole = digest(json.dumps(ordered).encode())
        write_whole(
            self.models / "manifest.json",
            (json.dumps({"sha256": whole, "files": ordered}, indent=2) + "\n").encode(),
        )
        return whole


def _split_outcome(outcome: Outcome) -> tuple[dict[str, Array], dict[str, Any]]:
    arrays: dict[str, Array] = {}
    for firm in outcome.payoffs:
        arrays[f"ids/{firm}"] = np.ascontiguousarray(outcome.ids[firm])
        arrays[f"payoffs/{firm}"] = np.ascontiguousarray(outcome.payoffs[firm])
    for name in ("table", "clients", "belief"):
        value = getattr(outcome, name)
        if value is not None:
            arrays[name] = np.ascontiguousarray(value)
    if outcome.maps is not None:
        arrays["maps"] = np.stack(outcome.maps).astype(np.int64)
    facts = {name: getattr(outcome, name) for name in ("seed", "contract", "declined", "excluded")}
    scores = {k: v for k, v in outcome.scores.items() if math.isfinite(v)}
    facts["riders"] = list(outcome.riders)
    facts["summaries"] = {k: dataclasses.asdict(v) for k, v in outcome.summaries.items()}
    return arrays, {**facts, "predicted": dict(outcome.predicted), "scores": scores}


def _join_outcome(arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> Outcome:
    def of(kind: str) -> dict[str, Array]:
        return {
            k.split("/", 1)[1]: v for k, v in sorted(arrays.items()) if k.startswith(f"{kind}/")
        }

    maps = arrays.get("maps")
    return Outcome(
        seed=facts["seed"],
        contract=facts["contract"],
        ids=of("ids"),
        payoffs=of("payoffs"),
        summaries={k: Summary(**v) for k, v in facts["summaries"].items()},
        predicted=facts["predicted"],
        declined=facts["declined"],
        excluded=facts["excluded"],
        riders=tuple(facts["riders"]),
        models={},
        table=arrays.get("table"),
        clients=arrays.get("clients"),
        belief=arrays.get("belief"),
        maps=None if maps is None else (maps[0], maps[1]),
        scores=facts["scores"],
    )


def read_safetensors(content: bytes, key: str) -> tuple[Any, dict[str, Array]]:
    """The JSON in a file's metadata, and its arrays."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return json.loads(header["__metadata__"][key]), load_arrays(content)


def same(one: Weights, two: Weights) -> bool:
    """Whether two models are equal in every bit."""
    return one.arrays.keys() == two.arrays.keys() and all(
        np.array_equal(v, two.arrays[k]) for k, v in one.arrays.items()
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def load(path: str | Path) -> pd.DataFrame:
    """Tidy rows of a finished run: one a seed, contract and firm.

    Returns:
        Columns study, seed, contract, firm, clients, payoff (mean a client), predicted, gain (over
        no_sharing, same seed) and decision (the whole run's).

    Raises:
        FedpactError: the folder holds no finished run.
    """
    import pandas as pd

    folder = Path(path)
    try:
        rows = pd.read_csv(folder / "payoffs.csv")
        verdict = json.loads((folder / "verdict.json").read_text())
    except OSError as fault:
        raise FedpactError(
            f"{folder} holds no finished run ({fault.strerror}: {fault.filename}). "
            f"Finish it with resume={folder}."
        ) from fault
    rows.insert(0, "study", verdict["study"])
    rows["decision"] = [
        verdict["contracts"][c]["firms"][f]["decision"]
        for c, f in zip(rows["contract"], rows["firm"], strict=True)
    ]
    return rows
