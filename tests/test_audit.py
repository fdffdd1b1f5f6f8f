"""The audit log of a firm: whatever is done to it, the first altered line is named."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parties.desk.audit import (
    RECEIVED,
    REFUSED,
    SENT,
    AlteredError,
    Audit,
    Entry,
    Line,
    head_of,
    read,
    verify,
)
from parties.exchange import FedpactError
from parties.reuse.signing import make_keys
from simulations.audit import main

LINES = 9
ENTRIES = [
    Entry(RECEIVED, "operator", "Enrol", 90, "a" * 64, tag="run/0//0/Enrol"),
    Entry(SENT, "operator", "Declaration", 300, "b" * 64, tag="run/0//0/Enrol"),
    Entry(RECEIVED, "operator", "Offer", 5000, "c" * 64, "full_sharing", 0, 0, "run/0/f/0/Offer"),
    Entry(SENT, "operator", "Trained", 7000, "d" * 64, "full_sharing", 0, 0, "run/0/f/0/Offer"),
    Entry(RECEIVED, "operator", "Offer", 5000, "c" * 64, "full_sharing", 1, 0, "run/0/f/1/Offer"),
    Entry(SENT, "operator", "Trained", 7100, "e" * 64, "full_sharing", 1, 0, "run/0/f/1/Offer"),
    Entry(RECEIVED, "operator", "Query", 80, "f" * 64, "\x1b[2J", 0, 0, "run/0/s/0/Query"),
    Entry(REFUSED, "operator", "Refusal", 70, "0" * 64, "\x1b[2J", note="beta: ünlösbar \ud800"),
    Entry(RECEIVED, "operator", "Enrol", 90, "a" * 64, tag="run/0//0/Enrol"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of nine lines, its head and its keys."""
    folder = tmp_path_factory.mktemp("audit")
    make_keys(folder, "sign")
    audit = Audit(folder / "audit.jsonl", folder / "sign.key")
    for entry in ENTRIES:
        audit.append(entry)
    audit.close()
    return folder


@pytest.fixture
def log(written: Path, tmp_path: Path) -> Path:
    """A copy of that log, to do things to."""
    shutil.copytree(written, tmp_path / "log")
    return tmp_path / "log" / "audit.jsonl"


def lines_of(written: Path) -> list[bytes]:
    return (written / "audit.jsonl").read_bytes().splitlines(keepends=True)


def found(log: Path, lines: list[bytes]) -> AlteredError:
    log.write_bytes(b"".join(lines))
    with pytest.raises(AlteredError) as raised:
        verify(log, log.parent / "sign.pub")
    return raised.value


def first_difference(before: list[bytes], after: list[bytes]) -> int:
    for place, (one, other) in enumerate(zip(before, after, strict=False)):
        if one != other:
            return place + 1
    return min(len(before), len(after)) + 1


SETTINGS = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def test_a_log_is_whole_as_it_was_written(log: Path) -> None:
    checked = verify(log, log.parent / "sign.pub")
    assert (checked.lines, checked.behind, checked.torn) == (LINES, False, False)
    kept = [
        {k: v for k, v in asdict(line).items() if k in asdict(ENTRIES[0])} for line in read(log)
    ]
    assert kept == [asdict(entry) for entry in ENTRIES]
    assert log.stat().st_mode & 0o777 == 0o600


@SETTINGS
@given(place=st.integers(0, LINES - 1), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_an_edited_line_is_named(place: int, at: float, bit: int, written: Path, log: Path) -> None:
    lines = lines_of(written)
    edited = bytearray(lines[place])
    edited[int(at * len(edited))] ^= 1 << bit
    after = [*lines[:place], bytes(edited), *lines[place + 1 :]]
    assert found(log, after).line == place + 1


@pytest.mark.parametrize("place", range(LINES))
def test_every_field_of_every_line_counts(place: int, written: Path, log: Path) -> None:
    lines = lines_of(written)
    facts = json.loads(lines[place])
    for name, value in facts.items():
        other = value + 1 if isinstance(value, int) else value + "x"
        text = json.dumps({**facts, name: other}, separators=(",", ":")).encode() + b"\n"
        fault = found(log, [*lines[:place], text, *lines[place + 1 :]])
        assert (fault.line, fault.problem.split(":")[0]) == (place + 1, "was edited")


@pytest.mark.parametrize("place", range(LINES))
def test_a_deleted_line_is_named(place: int, written: Path, log: Path) -> None:
    lines = lines_of(written)
    assert found(log, lines[:place] + lines[place + 1 :]).line == place + 1


@SETTINGS
@given(order=st.permutations(range(LINES)))
def test_the_first_line_out_of_order_is_named(order: list[int], written: Path, log: Path) -> None:
    lines = lines_of(written)
    after = [lines[place] for place in order]
    if after != lines:
        assert found(log, after).line == first_difference(lines, after)


@pytest.mark.parametrize("kept", range(LINES))
def test_a_log_that_was_cut_off_is_noticed_at_the_first_line_that_is_gone(
    kept: int, written: Path, log: Path
) -> None:
    lines = lines_of(written)
    assert found(log, lines[:kept]).line == kept + 1


@SETTINGS
@given(at=st.floats(0, 1, exclude_max=True))
def test_a_log_that_was_cut_in_a_line_is_noticed_there(at: float, written: Path, log: Path) -> None:
    whole = b"".join(lines_of(written))
    cut = whole[: int(at * len(whole))]
    assert found(log, [cut]).line == cut.count(b"\n") + 1


@SETTINGS
@given(place=st.integers(0, LINES), source=st.integers(0, LINES - 1))
def test_a_line_that_was_put_in_again_is_named(
    place: int, source: int, written: Path, log: Path
) -> None:
    lines = lines_of(written)
    after = [*lines[:place], lines[source], *lines[place:]]
    assert found(log, after).line == first_difference(lines, after)


def chained(lines: list[bytes], begin: int) -> list[bytes]:
    """What somebody without the key can do: number and hash the lines anew from `begin`."""
    fresh, before = list(lines[:begin]), "0" * 64
    if begin:
        before = json.loads(lines[begin - 1])["hash"]
    for n, raw in enumerate(lines[begin:], begin + 1):
        facts = {**json.loads(raw), "n": n, "previous": before}
        del facts["hash"]
        text = json.dumps(facts, separators=(",", ":"))
        before = hashlib.sha256(text.encode()).hexdigest()
        whole = json.dumps({**facts, "hash": before}, separators=(",", ":"))
        fresh.append(whole.encode() + b"\n")
    return fresh


@pytest.mark.parametrize("place", range(LINES))
def test_lines_with_fresh_hashes_are_noticed_by_the_head(
    place: int, written: Path, log: Path
) -> None:
    lines = lines_of(written)
    assert chained(lines, place) == lines
    lines[place] = json.dumps({**json.loads(lines[place]), "bytes": 1}).encode()
    fault = found(log, chained(lines, place))
    assert (fault.line, "the head" in fault.problem) == (LINES, True)


def test_two_lines_that_were_added_are_noticed(written: Path, log: Path) -> None:
    lines = lines_of(written)
    assert found(log, chained([*lines, lines[0], lines[1]], LINES)).line == LINES + 1


@SETTINGS
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_an_edited_head_is_noticed(at: float, bit: int, written: Path, log: Path) -> None:
    content = bytearray((written / "audit.head").read_bytes().rstrip(b"\n"))
    content[int(at * len(content))] ^= 1 << bit
    head_of(log).write_bytes(content)
    try:
        told = json.loads(content)
        # A letter of the signature in the other case is the same signature.
        same = (
            told["count"] == LINES
            and bytes.fromhex(told["signature"])
            == bytes.fromhex(json.loads((written / "audit.head").read_text())["signature"])
            and told["hash"] == json.loads(lines_of(written)[-1])["hash"]
        )
    except (ValueError, KeyError):
        same = False
    if not same:
        with pytest.raises(AlteredError):
            verify(log, log.parent / "sign.pub")


def test_a_head_by_another_key_and_a_missing_one_are_noticed(log: Path, tmp_path: Path) -> None:
    make_keys(tmp_path, "other")
    with pytest.raises(AlteredError, match="another key"):
        verify(log, tmp_path / "other.pub")
    head_of(log).unlink()
    with pytest.raises(AlteredError, match="missing"):
        verify(log)


def test_a_desk_whose_firm_has_made_new_keys_says_that_this_may_be_why(
    log: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    make_keys(tmp_path / "new", "sign")
    with pytest.raises(AlteredError, match=r"made new keys since, or .* altered.*old sign\.pub"):
        Audit(log, tmp_path / "new" / "sign.key")
    assert verify(log, log.parent / "sign.pub").lines == LINES


# ------------------------------------------------------------------------------------ crashes


@pytest.mark.parametrize("torn", [False, True], ids=["the head is behind", "a line is torn"])
def test_a_crash_between_line_and_head_is_mended_and_noted(
    torn: bool, written: Path, log: Path
) -> None:
    earlier = head_of(log).read_bytes()
    audit = Audit(log, log.parent / "sign.key")
    audit.append(Entry(SENT, "operator", "Scores"))
    audit.close()
    head_of(log).write_bytes(earlier)  # as if the process had died before it wrote the head
    if torn:
        os.truncate(log, log.stat().st_size - 7)
    checked = verify(log, log.parent / "sign.pub")
    assert (checked.behind, checked.torn) == (not torn, torn)
    assert checked.lines == LINES + (not torn)

    audit = Audit(log, log.parent / "sign.key")
    audit.append(ENTRIES[0])
    audit.close()
    checked = verify(log, log.parent / "sign.pub")
    assert (checked.behind, checked.torn) == (False, False)
    notes = [line.note for line in read(log) if line.direction == "noted"]
    assert notes == [
        ("a torn line was cut off" if torn else "the head was one line behind")
        + ", as a crash leaves it; mended"
    ]


def test_a_log_whose_desk_is_killed_at_any_moment_is_whole_and_goes_on(log: Path) -> None:
    rng, written = random.Random(0), LINES
    for _ in range(20):
        child = os.fork()
        if not child:  # only appends, until it is killed: pytest's own end is not for it
            try:
                audit = Audit(log, log.parent / "sign.key")
                while True:
                    audit.append(ENTRIES[3])
            finally:
                os._exit(1)
        size, deadline = log.stat().st_size, time.monotonic() + 20
        while log.stat().st_size == size and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.04))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        found_now = verify(log, log.parent / "sign.pub").lines
        assert found_now > written
        written = found_now
    Audit(log, log.parent / "sign.key").close()


def test_a_desk_does_not_add_to_an_altered_log(written: Path, log: Path) -> None:
    log.write_bytes(b"".join(lines_of(written)[:-1]))
    with pytest.raises(AlteredError, match=f"line {LINES} is missing"):
        Audit(log, log.parent / "sign.key")
    log.unlink()
    with pytest.raises(AlteredError, match="line 1 is missing"):
        Audit(log, log.parent / "sign.key")


def test_one_desk_holds_a_log(log: Path) -> None:
    audit = Audit(log, log.parent / "sign.key")
    with pytest.raises(FedpactError, match="held by another desk"):
        Audit(log, log.parent / "sign.key")
    audit.close()
    with pytest.raises(FedpactError, match="was closed"):
        audit.append(ENTRIES[0])
    Audit(log, log.parent / "sign.key").close()


def test_nothing_more_is_written_once_the_key_is_gone(log: Path) -> None:
    audit = Audit(log, log.parent / "sign.key")
    (log.parent / "sign.key").rename(log.parent / "away.key")
    for problem in ("cannot be read", "Start the desk again"):
        with pytest.raises(FedpactError, match=problem):
            audit.append(ENTRIES[0])
    (log.parent / "away.key").rename(log.parent / "sign.key")
    Audit(log, log.parent / "sign.key").close()
    assert verify(log, log.parent / "sign.pub").lines == LINES + 2  # and the note


def test_long_texts_are_cut_and_a_line_stays_readable(log: Path) -> None:
    audit = Audit(log, log.parent / "sign.key")
    long = "\udfff" * 10**5
    audit.append(Entry(SENT, long, long, 1, long, long, 10**4000, 10**4000, long, long))
    audit.close()
    assert verify(log, log.parent / "sign.pub").lines == LINES + 1
    *_, last = read(log)
    assert isinstance(last, Line)
    assert (len(last.note), len(last.tag)) == (2000, 600)


# ------------------------------------------------------------------------------- the command


def test_the_command_says_that_a_log_is_whole(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(log), "--key", str(log.parent / "sign.pub")]) == 0
    assert capsys.readouterr().out == f"{LINES} lines, whole\n"


def test_the_command_names_the_altered_line(
    written: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(written)
    log.write_bytes(b"".join(lines[:3] + lines[4:]))
    for command in ("verify", "show"):
        assert main([command, str(log)]) == 1
        assert "line 4 is line 5 of the log" in capsys.readouterr().out


def test_the_command_shows_what_left_by_contract_and_type(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(log)]) == 0
    shown = capsys.readouterr().out.splitlines()
    left = [line.split() for line in shown[shown.index("What left this firm") :]]
    assert ["full_sharing", "Trained", "2", "14,100", "7,100"] in left
    assert ["-", "Declaration", "1", "300", "300"] in left
    assert ["\\x1b[2J", "Refusal", "1", "70", "70"] in left  # a terminal is not cleared by it
    assert "  line 8  \\x1b[2J  beta: ünlösbar \\ud800" in shown


def test_what_is_no_log_or_no_key_is_a_mistake_to_mend(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_bytes(b"\xff\x00 dear auditor\n")
    for words in (
        ["verify", str(tmp_path / "nothing.jsonl")],
        ["verify", str(tmp_path)],
        ["show", str(tmp_path / "letter.txt")],
        ["verify", str(log), "--key", str(tmp_path / "letter.txt")],
        ["verify", str(log), "--key", str(tmp_path / "nothing.pub")],
    ):
        assert main(words) == 2, words
        assert capsys.readouterr().err.startswith("fedpact: ")
