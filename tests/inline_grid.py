"""An own Flower Grid, without a SuperLink. The only file that touches Flower's private parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, final
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import (
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from simulations.engines import in_turn

CLIENT_FAULT = 2  # Flower's code for a ClientApp that raised
RUN_ID = 1
FIRST_NODE = 1000


def contexts_of(
    firms: Sequence[str], party_key: str, run_config: dict[str, Any]
) -> dict[int, Context]:
    """One Context a firm, by node id."""
    return {
        FIRST_NODE + place: Context(
            run_id=RUN_ID,
            node_id=FIRST_NODE + place,
            node_config={"partition-id": place, "num-partitions": len(firms), party_key: firm},
            state=RecordDict(),
            run_config=dict(run_config),
        )
        for place, firm in enumerate(firms)
    }


def server_context(run_config: dict[str, Any]) -> Context:
    """The ServerApp's Context."""
    return Context(
        run_id=RUN_ID, node_id=1, node_config={}, state=RecordDict(), run_config=dict(run_config)
    )


def content_to_bytes(content: RecordDict) -> bytes:
    """A message's records as bytes (protobuf)."""
    return bytes(recorddict_to_proto(content).SerializeToString())


def content_from_bytes(data: bytes) -> RecordDict:
    """The reverse of `content_to_bytes`."""
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


def envelope_to_bytes(message: Message) -> bytes:
    """A message's metadata (and error), without its content, as bytes."""
    bare = Message(RecordDict(), reply_to=message)
    bare.__dict__["_metadata"] = message.metadata
    return bytes(message_to_proto(bare).SerializeToString())


def envelope_from_bytes(data: bytes, content: RecordDict) -> Message:
    """The reverse of `envelope_to_bytes`, with the content put in."""
    message = message_from_proto(ProtoMessage.FromString(data))
    message.content = content
    return message


def copied(message: Message) -> Message:
    """The message as its receiver would read it, so that no two sides share a value."""
    data = message_to_proto(message).SerializeToString()
    return message_from_proto(ProtoMessage.FromString(data))


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """The ClientApp's reply, or an error reply if it raised (as a SuperNode would send)."""
    try:
        reply = app(message, context)
    except Exception as fault:
        reply = fault_reply(message, f"{type(fault).__name__}: {fault}")
    stamp(reply)
    return reply


def fault_reply(message: Message, reason: str) -> Message:
    """An error reply to `message`."""
    return Message(Error(code=CLIENT_FAULT, reason=reason), reply_to=message)


def stamp(message: Message) -> str:
    """Give a message the id that a SuperLink would give it."""
    message.metadata.__dict__["_message_id"] = str(uuid4())
    return message.metadata.message_id


class OwnGrid(Grid):
    """What our grids have in common: node ids, message ids, a box of replies."""

    def __init__(self, nodes: Iterable[int]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 1, 1
        self._nodes = list(nodes)
        self._replies: dict[str, Message] = {}
        self._run = Run.create_empty(RUN_ID)

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        return list(self._nodes)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]


@final
class InlineGrid(OwnGrid):
    """Firms in this process, in the order of the messages.

    Args:
        app: every firm's; contexts: by node id.
        hold: runs the firms that are asked together.
    """

    def __init__(
        self,
        app: ClientApp,
        contexts: dict[int, Context],
        hold: Callable[[Sequence[Callable[[], Message]]], list[Message]] = in_turn,
    ) -> None:
        super().__init__(contexts)
        self._app, self._contexts, self._hold = app, contexts, hold

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        sent = list(messages)
        ids = [stamp(message) for message in sent]
        replies = self._hold([partial(self._reply, message) for message in sent])
        self._replies.update(zip(ids, replies, strict=True))
        return ids

    def _reply(self, message: Message) -> Message:
        received = copied(message)
        return copied(answer(self._app, received, self._contexts[message.metadata.dst_node_id]))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """The replies. In one process nothing can be interrupted, so `timeout` is not used."""
        return self.pull_messages(self.push_messages(messages))
