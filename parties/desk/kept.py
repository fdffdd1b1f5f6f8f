"""What a desk keeps on disk, so that it goes on to the same answers after it was killed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import final

import numpy as np
from safetensors.numpy import load, save

from parties.exchange import Array, FedpactError
from parties.files import digest, read_marked, write_marked

log = logging.getLogger("fedpact.desk")

MOST_ANSWERS = 1024  # a step of many sessions side by side may be asked for again
MOST_BYTES = 2**30  # that answers take on disk
MOST_RUNS = 64


@final
class Models(MutableMapping[str, dict[str, Array]]):
    """The models that a firm remembers, a file each. A damaged one is forgotten: it is made again.

    Args:
        folder: where they lie, as `<sha256 of the name>.model`: sha256, then safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, dict[str, Array]] = {}
        for file in sorted(folder.glob("*.model")):
            content = read_marked(file)
            if content is None:
                log.warning("%s is damaged: what it held is made again", file)
                file.unlink()
                continue
            size = int.from_bytes(content[:8], "little")
            facts = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["model"])
            arrays = load(content)
            # Tensors come back in the order in which they were, which an answer shows.
            self._held[facts["name"]] = {name: arrays[name] for name in facts["tensors"]}

    def __getitem__(self, key: str) -> dict[str, Array]:
        return self._held[key]

    def __setitem__(self, key: str, arrays: dict[str, Array]) -> None:
        facts = json.dumps({"name": key, "tensors": list(arrays)})
        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        write_marked(self._file(key), save(whole, metadata={"model": facts}))
        self._held[key] = arrays

    def __delitem__(self, key: str) -> None:
        del self._held[key]
        self._file(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._held))

    def __len__(self) -> int:
        return len(self._held)

    def _file(self, key: str) -> Path:
        return self._folder / f"{digest(key.encode())}.model"


@final
class Kept:
    """A desk's memory: models, notes, the runs that enrolled, and the last answers.

    An answer, and the notes as the firm left them when it gave it, are one file: so either a
    question was answered and its notes are there, or neither.

    Args:
        folder: the desk's `memory/`.
        signer: of the answers, by its public key. What was signed with another key is not given
            again: models and notes are the same, and it is signed anew.

    Raises:
        FedpactError: the last answer on file is damaged, and with it the notes.
    """

    def __init__(self, folder: Path, signer: str = "") -> None:
        self._folder, self._signer = folder / "answers", signer
        self.models = Models(folder / "models")
        self.notes: dict[str, str] = {}
        self.runs: tuple[str, ...] = ()
        self._answers: dict[tuple[str, str], Path] = {}
        self._next = 0
        for file in sorted(self._folder.glob("*.answer")):
            self._next = int(file.stem) + 1
            head, _, _ = (read_marked(file) or b"").partition(b"\n")
            if head:
                facts = json.loads(head)
                self._answers[facts["tag"], facts["question"]] = file
                self.notes, self.runs = facts["notes"], tuple(facts["runs"])
        if self._next and self._file(self._next - 1) not in self._answers.values():
            raise FedpactError(
                f"{self._file(self._next - 1)} is damaged; legal is what the desk wrote, for its "
                "notes are in it. Remove the file: the desk goes on from the answer before it."
            )

    def found(self, tag: str, question: str) -> bytes | None:
        """The answer that was given to this question under this tag, if it is still kept.

        Args:
            question: sha256 of its frame.
        """
        file = self._answers.get((self._signer + tag, question))
        content = None if file is None else read_marked(file)
        return None if content is None else content.partition(b"\n")[2] or None

    def keep(
        self, tag: str, question: str, answer: bytes, notes: dict[str, str], run: str | None
    ) -> None:
        """Put an answer on disk, with the notes; old ones make room.

        Args:
            answer: b"": none that is to be given again.
            run: one that has enrolled by it.
        """
        if run is not None:
            self.runs = (*(r for r in self.runs if r != run), run)[-MOST_RUNS:]
        self.notes = notes
        tag = self._signer + tag
        facts = {"tag": tag, "question": question, "notes": notes, "runs": self.runs}
        file = self._file(self._next)
        write_marked(file, json.dumps(facts).encode() + b"\n" + answer)
        self._next += 1
        self._answers.pop((tag, question), None)
        self._answers[tag, question] = file
        self._make_room()

    def _make_room(self) -> None:
        kept = sorted(self._folder.glob("*.answer"), reverse=True)
        taken = 0
        for place, file in enumerate(kept):
            taken += file.stat().st_size
            if place and (place >= MOST_ANSWERS or taken > MOST_BYTES):
                file.unlink()
        self._answers = {key: file for key, file in self._answers.items() if file.exists()}

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:012}.answer"
