"""The firm's app attached to its desk: it hands a question over, and the answer back."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from parties.desk.frames import READY, receive, send
from parties.exchange import Answer, ExchangeError, FedpactError, Request, pack, unpack
from parties.exchange.frames import read_frame, write_frame
from parties.memory import Memory

KNOCK_S = 0.1  # between two attempts to reach a desk that is not there yet
A_DAY = 86400.0


@final
class DeskAwayError(FedpactError):
    """The firm's desk cannot be reached, or did not answer."""


@final
@dataclass(frozen=True)
class Attached:
    """The way to a firm's desk.

    Args:
        path: its socket.
        wait_s: how long to wait for a desk that is starting, or starting again.
        answer_s: how long to wait for an answer; the operator's own wait is shorter.
        tag: of the question that is asked; a desk that knows the question gives the same answer.
    """

    path: Path
    wait_s: float = 120.0
    answer_s: float = A_DAY
    tag: str = ""

    def under(self, tag: str) -> Attached:
        """The same way, for the question under this tag."""
        return replace(self, tag=tag)

    def answer(self, request: Request, memory: Memory | None = None) -> Answer:
        """The desk's answer. The desk has a memory of its own.

        Raises:
            DeskAwayError: no desk within the wait, or it went away twice.
            ExchangeError: what came back is no answer.
        """
        question = write_frame(pack(request))
        try:
            frame = self._ask(question)
        except (ConnectionError, EOFError):
            # The desk was killed in the middle. It knows by the tag what it has answered already.
            try:
                frame = self._ask(question)
            except (ConnectionError, EOFError) as fault:
                raise self._away(f"the connection broke twice: {fault}") from fault
        answer = unpack(read_frame(frame))
        if not isinstance(answer, Answer):
            raise ExchangeError(f"the desk sent a {type(answer).__name__}; legal is an answer.")
        return answer

    def _ask(self, question: bytes) -> bytearray:
        with self._reach() as link:
            link.settimeout(self.answer_s)
            try:
                send(link, self.tag, question)
                told = receive(link)
            except TimeoutError as fault:
                raise self._away(f"no answer within {self.answer_s:g} s") from fault
        if told is None:
            raise EOFError("it closed without an answer")
        tag, frame = told
        if tag != self.tag:
            raise ExchangeError(f"the desk answered {tag!r}, asked was {self.tag!r}.")
        return frame

    def _reach(self) -> socket.socket:
        deadline = time.monotonic() + self.wait_s
        while True:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.settimeout(max(deadline - time.monotonic(), KNOCK_S))
            try:
                link.connect(str(self.path))
                # A desk that is being killed takes connections still, which break at once.
                if link.recv(1) == READY:
                    return link
                raise ConnectionResetError("it closes every connection")
            except (FileNotFoundError, ConnectionError, BlockingIOError, TimeoutError) as no:
                link.close()
                if time.monotonic() >= deadline:
                    raise self._away(f"{no.strerror or no}, for {self.wait_s:g} s") from no
            except OSError as fault:
                link.close()
                raise self._away(str(fault.strerror or fault)) from fault
            time.sleep(KNOCK_S)

    def _away(self, problem: str) -> DeskAwayError:
        return DeskAwayError(
            f"The desk at {self.path} does not answer ({problem}); legal is a desk that runs, and "
            "is this user's. Start the firm's desk, and look into its log."
        )
