"""The audit log of a firm: every message that it received and sent, a line each, chained by hashes.

A line's hash covers the hash of the line before it; so whoever edits, deletes, moves or inserts a
line breaks the chain there. `audit.head` says how many lines there are and the last one's hash,
signed with the firm's key; so a log that was cut off, or written anew with fresh hashes, is
noticed too. What is not noticed: an earlier log put back together with its own earlier head. Who
fears that gives copies of the head to others now and then.

A line is on the disk before the head that counts it. A crash between the two leaves the head one
line behind, and one in the middle of a line leaves a torn line after those that the head counts:
neither is an alteration. When the log is opened again, that is mended, and noted in the log.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from parties.exchange import FedpactError
from parties.files import digest, write_whole
from parties.reuse.signing import is_signed, sign

RECEIVED, SENT, REFUSED, NOTED = "received", "sent", "refused", "noted"
START = "0" * 64  # the hash before the first line
MOST_LINE = 2**16  # bytes
MOST_NOTE, MOST_WORD = 2000, 600  # characters that a line keeps of a note, or another text
PURPOSE = b"fedpact audit head\n"  # so that a signature of something else is none of a head


@final
@dataclass(frozen=True)
class Entry:
    """What is written down of one message.

    Args:
        direction: "received", "sent", "refused" (a refusal was sent), or "noted" by the log itself.
        peer: from or to whom; type: of the message; bytes, sha256: of its frame.
        contract, round, seed, tag: of the question that it is, or answers.
        note: what a person should know of it.
    """

    direction: str
    peer: str = ""
    type: str = ""
    bytes: int = 0
    sha256: str = ""
    contract: str = ""
    round: int = 0
    seed: int = 0
    tag: str = ""
    note: str = ""


@final
@dataclass(frozen=True)
class Line:
    """An entry in its place: its number from 1, when, and the hashes that chain it."""

    n: int
    time: str
    direction: str
    peer: str
    type: str
    bytes: int
    sha256: str
    contract: str
    round: int
    seed: int
    tag: str
    note: str
    previous: str
    hash: str


_TYPES = {f.name: int if f.type == "int" else str for f in fields(Line)}

ANOTHER_KEY = "was edited, or signed with another key"


@final
class AlteredError(FedpactError):
    """A log that is not as it was written.

    Args:
        line: the first one that is not, from 1; 0: it is the head.
        problem: what is wrong there.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line} {problem}" if line else f"audit.head {problem}")
        self.line, self.problem = line, problem


@final
@dataclass(frozen=True)
class Checked:
    """A log in which nothing was altered.

    Args:
        lines: how many; last: the hash of the last; size: bytes that they take.
        behind: the head is one line behind; torn: a part of a line follows. A crash leaves both.
    """

    lines: int
    last: str
    size: int
    behind: bool
    torn: bool


def head_of(path: Path) -> Path:
    """The head that belongs to a log."""
    return path.with_suffix(".head")


def verify(path: Path, public: Path | None = None) -> Checked:
    """Check a log and its head.

    Args:
        public: the firm's public key; without it the head's signature is not checked, and whoever
            can write both files can have written both anew.

    Raises:
        AlteredError: at the first line that is not as it was written.
        FedpactError: the log or the key cannot be read.
    """
    return _check(path, lambda content, signature: _is_by(public, content, signature))


def read(path: Path) -> Iterator[Line]:
    """The lines of a log, up to the first that is not as it was written.

    Raises:
        FedpactError: the log cannot be read.
    """
    for _, line in _lines(path):
        if not isinstance(line, Line):
            return
        yield line


# ---------------------------------------------------------------------------------- checking


def _check(path: Path, signed: Callable[[bytes, bytes], bool]) -> Checked:
    count, last = _read_head(path, signed)
    n, size, before = 0, 0, START
    for raw, line in _lines(path):
        if n == count and not raw.endswith(b"\n") and len(raw) < MOST_LINE:
            return Checked(n, before, size, behind=False, torn=True)
        n += 1
        if isinstance(line, str):
            raise AlteredError(n, line)
        if line.n > n:
            raise AlteredError(n, f"is line {line.n} of the log: others before it are gone")
        if line.n < n:
            raise AlteredError(n, f"is line {line.n} of the log, put in here")
        if line.previous != before:
            raise AlteredError(n, "does not follow the line before it: one of them was replaced")
        before, size = line.hash, size + len(raw)
        if n == count and before != last:
            raise AlteredError(
                n, "is not the one that the head was made for: it was replaced, or lines before it"
            )
    if n < count:
        raise AlteredError(n + 1, f"is missing: the log ends, and had {count} lines")
    if n > count + 1:
        raise AlteredError(count + 1, f"and those after it were added: the head counts {count}")
    return Checked(n, before, size, behind=n > count, torn=False)


def _lines(path: Path) -> Iterator[tuple[bytes, Line | str]]:
    """Each line as it is on disk, and read, or what is wrong with it."""
    try:
        with path.open("rb") as file:
            while raw := file.readline(MOST_LINE):
                yield raw, _parse(raw)
    except OSError as fault:
        raise FedpactError(
            f"{path} cannot be read ({fault.strerror}); legal is the audit log of a firm's desk, "
            "audit.jsonl. Correct the path."
        ) from fault


def _parse(raw: bytes) -> Line | str:
    if not raw.endswith(b"\n"):
        return "is cut short"
    try:
        facts = json.loads(raw.decode("ascii"))
    except (ValueError, RecursionError):
        return "was edited: it is no JSON"
    if not isinstance(facts, dict) or {k: type(v) for k, v in facts.items()} != _TYPES:
        return "was edited: it has not the fields of a line"
    line = Line(**facts)
    # Written again it must be the same bytes: blanks and the order of fields count too.
    if _sealed(line) != line.hash or _text(line) != raw:
        return "was edited: its hash is another"
    return line


def _text(line: Line) -> bytes:
    return json.dumps(asdict(line), separators=(",", ":")).encode("ascii") + b"\n"


def _sealed(line: Line) -> str:
    facts = {k: v for k, v in asdict(line).items() if k != "hash"}
    return digest(json.dumps(facts, separators=(",", ":")).encode("ascii"))


def _read_head(path: Path, signed: Callable[[bytes, bytes], bool]) -> tuple[int, str]:
    """How many lines a log has by its head, and the last one's hash."""
    if not path.is_file():
        raise FedpactError(
            f"{path} is no file; legal is the audit log of a firm's desk, audit.jsonl. Correct the "
            "path."
        )
    try:
        facts = json.loads(head_of(path).read_bytes()[:MOST_LINE].decode("ascii"))
        count, last, signature = facts["count"], facts["hash"], bytes.fromhex(facts["signature"])
        legal = type(count) is int and count >= 0 and isinstance(last, str)
    except FileNotFoundError as fault:
        if next(read(path), None) is None:
            raise FedpactError(
                f"{path} is no audit log, and has no head beside it; legal is the audit.jsonl of a "
                "firm's desk. Correct the path."
            ) from fault
        raise AlteredError(0, "is missing: whether lines were cut off cannot be told") from fault
    except OSError as fault:
        raise FedpactError(
            f"{head_of(path)} cannot be read ({fault.strerror}); legal is a file beside the log. "
            "Put it there."
        ) from fault
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise AlteredError(0, "was edited: it cannot be read") from fault
    if not legal or not signed(_head(count, last), signature):
        raise AlteredError(0, ANOTHER_KEY)
    return count, last


def _head(count: int, last: str) -> bytes:
    return PURPOSE + json.dumps([count, last]).encode("ascii")


def _is_by(public: Path | None, content: bytes, signature: bytes) -> bool:
    return public is None or is_signed(content, signature, "firm", {"firm": str(public)})


# ----------------------------------------------------------------------------------- writing


@final
class Audit:
    """A firm's audit log, open to be added to, by one process at a time.

    Args:
        path: `audit.jsonl`; its head lies beside it.
        secret: the firm's Ed25519 key (PEM), which signs the head.

    Raises:
        AlteredError: it is not as it was written.
        FedpactError: another desk holds it, or it cannot be written.
    """

    def __init__(self, path: Path, secret: Path) -> None:
        self.path, self._secret = path, secret
        self._turn = threading.Lock()
        self._file = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._lock()
            self._open()
        except OSError as fault:
            self.close()
            raise _unwritable(path, fault) from fault
        except FedpactError:
            self.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise FedpactError(
                f"{self.path} is held by another desk; one writes an audit log. Stop that desk, or "
                "use a folder of its own for each."
            ) from fault

    def _open(self) -> None:
        if not os.fstat(self._file).st_size and not head_of(self.path).exists():
            self._count, self._last = 0, START
            self._write_head()
        try:
            # The same key signs the same bytes alike, so the secret one can check its own heads.
            found = _check(self.path, lambda head, mark: sign(head, self._secret) == mark)
        except AlteredError as fault:
            new_keys = (
                "Either this firm has made new keys since, or it was altered: then find out by "
                "whom. Move both files away, with the old sign.pub that verifies them, and a new "
                "log begins."
            )
            altered = (
                "A desk adds to no log that was altered: find out who did it, and move both files "
                "away, to keep, before a new log begins."
            )
            what = new_keys if fault.problem == ANOTHER_KEY else altered
            raise AlteredError(fault.line, f"{fault.problem} ({self.path}). {what}") from fault
        self._count, self._last = found.lines, found.last
        if found.torn:
            os.ftruncate(self._file, found.size)
        if found.behind:
            self._write_head()
        if found.torn or found.behind:
            what = "a torn line was cut off" if found.torn else "the head was one line behind"
            self.append(Entry(NOTED, note=f"{what}, as a crash leaves it; mended"))

    def append(self, entry: Entry) -> None:
        """Add a line, and wait until it is on the disk.

        Raises:
            FedpactError: it cannot be written. Nothing may leave the firm then.
        """
        with self._turn:
            if self._file < 0:
                raise FedpactError(
                    f"{self.path} was closed, or could not be written before; legal is an open log "
                    "on a disk with room. Start the desk again: it mends what a crash leaves."
                )
            facts: dict[str, Any] = {
                key: value if isinstance(value, int) else value[:MOST_WORD]
                for key, value in asdict(entry).items()
            }
            facts["note"] = entry.note[:MOST_NOTE]
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = Line(self._count + 1, now, **facts, previous=self._last, hash="")
            line = Line(**{**asdict(line), "hash": _sealed(line)})
            text = _text(line)
            try:
                if os.write(self._file, text) != len(text):
                    raise OSError(28, os.strerror(28))  # the rest has no room
                os.fsync(self._file)
                self._count, self._last = line.n, line.hash
                self._write_head()
            except OSError as fault:
                self._close()
                raise _unwritable(self.path, fault) from fault
            except FedpactError:  # the key is gone
                self._close()
                raise

    def _write_head(self) -> None:
        facts = {"count": self._count, "hash": self._last}
        signature = sign(_head(self._count, self._last), self._secret).hex()
        text = json.dumps({**facts, "signature": signature})
        write_whole(head_of(self.path), f"{text}\n".encode())
        folder = os.open(self.path.parent, os.O_RDONLY)  # or power may fail before it is in there
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let go of the log."""
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _unwritable(path: Path, fault: OSError) -> FedpactError:
    return FedpactError(
        f"{path} cannot be written ({fault.strerror}); legal is a folder of the firm's, on a disk "
        "with room. Make room, or correct the path, and start the desk again."
    )
