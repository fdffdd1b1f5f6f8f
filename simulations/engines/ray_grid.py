"""Flower's Grid over Ray actors: firms' messages as bytes, large ones through the object store."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import ray
from flwr.app import Context, Message

from simulations.engines import grid
from simulations.source import code_digest

AWAY_S = 120.0  # Ray takes a while to see that a machine is lost: until then, ask again
PAUSE_S = 0.5
LARGE = 100_000  # bytes; larger contents go to the object store once, whatever the audience


def start_workers(count: int, num_cpus: float, num_gpus: float) -> list[Any]:
    """Ray handles of `count` new workers with their CPU and GPU shares."""
    # An actor is a cache: after a crash it starts empty, and recomputes the same answers.
    kind: Any = ray.remote(
        num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=-1, max_task_retries=3
    )(Worker)
    return [kind.remote() for _ in range(count)]


@final
class Worker:
    """What one Ray actor does: answers the messages of its firms, one after the other."""

    def __init__(self) -> None:
        self._job = ""
        self._contexts: dict[int, Any] = {}
        self._app: Any = None

    def code(self) -> str:
        """The sha256 of the code that it runs."""
        return code_digest()

    def answer(
        self, job: str, opened: list[Any], envelopes: list[bytes], places: list[int], *contents: Any
    ) -> list[tuple[bytes, Any]]:
        """Replies as (envelope, content) to messages given as envelopes and shared contents.

        Args:
            job: names the job; a new one is opened with the app and contexts in `opened`.
            envelopes: a message's metadata each.
            places: for each message, which of `contents` is its content.
        """
        if job != self._job:
            self._open(job, opened)
        # A content is parsed anew for every message, so firms share no value.
        replies = []
        for data, place in zip(envelopes, places, strict=True):
            content = grid.content_from_bytes(bytes(contents[place]))
            message = grid.envelope_from_bytes(data, content)
            reply = grid.answer(self._app, message, self._contexts[message.metadata.dst_node_id])
            replies.append(_shipped(reply))
        return replies

    def _open(self, job: str, opened: list[Any]) -> None:
        reference, contexts = ray.get(opened[0])
        module, name = reference.split(":")
        self._app = getattr(importlib.import_module(module), name)
        self._contexts, self._job = contexts, job


@final
@dataclass(frozen=True)
class _Call:
    """One call of a worker: its messages, how it is made again, and until when."""

    stack: list[Message]
    send: Callable[[], Any]
    until: float


@final
class RayGrid(grid.OwnGrid):
    """A Flower Grid over Ray actors.

    Args:
        actors: Ray handles of `Worker`.
        app: the ClientApp as "module:name".
        contexts: Flower's Context by node id; a node belongs to one actor for the whole job.
    """

    def __init__(self, actors: list[Any], app: str, contexts: dict[int, Context]) -> None:
        super().__init__(contexts)
        self._actors = actors
        self._job = os.urandom(8).hex()
        self._opened = [ray.put((app, contexts))]
        self._home = {node: i % len(actors) for i, node in enumerate(sorted(contexts))}
        self._open: dict[Any, _Call] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        stacks: dict[int, list[Message]] = {}
        ids = []
        for message in messages:
            ids.append(grid.stamp(message))
            stacks.setdefault(self._home[message.metadata.dst_node_id], []).append(message)
        stored: dict[int, Any] = {}
        for home, stack in stacks.items():
            contents: list[Any] = []
            order: dict[int, int] = {}
            for message in stack:
                key = id(message.content)
                if key not in stored:
                    stored[key] = _stored(grid.content_to_bytes(message.content))
                if key not in order:
                    order[key] = len(contents)
                    contents.append(stored[key])
            envelopes = [grid.envelope_to_bytes(m) for m in stack]
            places = [order[id(m.content)] for m in stack]
            send = partial(
                self._actors[home].answer.remote,
                *(self._job, self._opened, envelopes, places, *contents),
            )
            self._open[send()] = _Call(stack, send, time.monotonic() + AWAY_S)
        return ids

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        ids = self.push_messages(messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._open:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            done, _ = ray.wait(list(self._open), num_returns=1, timeout=left)
            if not done:
                break
            self._receive(done[0])
        for future in list(self._open):
            # A straggler's reply would answer a round that is over.
            del self._open[future]
        return self.pull_messages(ids)

    def _receive(self, future: Any) -> None:
        call = self._open.pop(future)
        stack = call.stack
        try:
            shipped = ray.get(future)
        except ray.exceptions.ActorUnavailableError as fault:
            if time.monotonic() < call.until:
                time.sleep(PAUSE_S)
                self._open[call.send()] = call
                return
            shipped = [(b"", f"its worker failed: {type(fault).__name__}")] * len(stack)
        except ray.exceptions.RayError as fault:
            shipped = [(b"", f"its worker failed: {type(fault).__name__}")] * len(stack)
        for message, (envelope, content) in zip(stack, shipped, strict=True):
            if envelope:
                records = grid.content_from_bytes(bytes(content))
                reply = grid.envelope_from_bytes(envelope, records)
            else:
                reply = grid.fault_reply(message, str(content))
            self._replies[message.metadata.message_id] = reply


def _shipped(reply: Any) -> tuple[bytes, Any]:
    """A reply as bytes; an error travels as its code and reason."""
    if reply.has_error():
        return b"", reply.error.reason
    content = grid.content_to_bytes(reply.content)
    return grid.envelope_to_bytes(reply), np.frombuffer(content, np.uint8)


def _stored(content: bytes) -> Any:
    """Large contents go to the object store once; workers read them without a copy."""
    view = np.frombuffer(content, np.uint8)
    return ray.put(view) if len(content) > LARGE else view
