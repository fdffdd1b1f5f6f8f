"""Our Grid against Flower: the private parts it needs are there, and nothing is shared."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from tests.inline_grid import (
    InlineGrid,
    content_from_bytes,
    content_to_bytes,
    contexts_of,
    copied,
    envelope_from_bytes,
    envelope_to_bytes,
)

KEPT: list[Message] = []


def echo() -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        KEPT.append(message)
        message.content["mark"] = ArrayRecord({"x": Array(np.zeros(1))})
        if context.node_config["party"] == "bad":
            raise ValueError("no such column")
        return Message(message.content, reply_to=message)

    return app


def grid(*firms: str) -> InlineGrid:
    return InlineGrid(echo(), contexts_of(firms, "party", {"k": 1}))


def content() -> RecordDict:
    return RecordDict({"a": ArrayRecord({"w": Array(np.arange(6.0))})})


def test_flower_is_a_version_whose_private_parts_we_know() -> None:
    assert version("flwr").split(".")[:2] in (["1", "41"], ["1", "42"])
    grid("x")
    assert (TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id) == (1, 1, 1)
    message = Message(content(), 1000, "query")
    assert "_message_id" in message.metadata.__dict__


def test_what_a_firm_writes_into_a_message_reaches_nobody_else() -> None:
    shared = content()
    inner = grid("a", "b")
    replies = inner.send_and_receive([Message(shared, node, "query") for node in (1000, 1001)])
    assert len(replies) == 2
    assert list(shared) == ["a"]
    kept = KEPT[-1].content.array_records["a"]
    kept["w"] = Array(np.ones(6))
    for reply in replies:
        np.testing.assert_array_equal(reply.content.array_records["a"]["w"].numpy(), np.arange(6.0))


def test_one_firms_exception_is_an_error_reply_and_the_others_answer() -> None:
    inner = grid("bad", "good")
    bad, good = inner.send_and_receive([Message(content(), n, "query") for n in (1000, 1001)])
    assert bad.has_error()
    assert "ValueError: no such column" in str(bad.error.reason)
    assert good.has_content()


def test_envelopes_and_contents_survive_apart() -> None:
    grid("a")
    message = Message(content(), 1000, "query.now", group_id="7", ttl=60)
    back = envelope_from_bytes(
        envelope_to_bytes(message), content_from_bytes(content_to_bytes(message.content))
    )
    assert back.metadata.__dict__ == message.metadata.__dict__
    assert back.content.array_records == message.content.array_records
    assert copied(message).metadata.__dict__ == message.metadata.__dict__


def test_a_node_has_one_context_for_the_whole_run() -> None:
    found = contexts_of(["a", "b"], "party", {"k": 1})
    assert [c.node_config["party"] for c in found.values()] == ["a", "b"]
    assert [c.node_config["partition-id"] for c in found.values()] == [0, 1]


@pytest.mark.parametrize("ids", [[], ["unknown"]])
def test_pulling_what_is_not_there_gives_nothing(ids: list[str]) -> None:
    assert grid("a").pull_messages(ids) == []
