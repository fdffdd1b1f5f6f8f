"""The firm's Flower ClientApp: record -> Firm verb -> record. No logic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping

from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from parties.answering import Answering, Tagging
from parties.exchange import Answer, Array, Fault, Packed, Request, pack, unpack
from parties.memory import Memory
from parties.wire import read_records, write_records

log = logging.getLogger("fedpact.firm")


def client_app(firm_of: Callable[[Context], Answering]) -> ClientApp:
    """A ClientApp that answers every request through the firm that `firm_of` finds."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        # The operator knows by its tag which question is answered, and refuses stale ones.
        told = [
            (tag, pack(_told(packed, tag, context, firm_of)))
            for tag, packed in read_records(message.content)
        ]
        return Message(write_records(told), reply_to=message)

    app.train()(answer)
    app.query()(answer)
    app.evaluate()(answer)
    return app


def _told(
    packed: Packed, tag: str, context: Context, firm_of: Callable[[Context], Answering]
) -> Answer:
    """The firm's answer to one question, or the kind of what went wrong."""
    try:
        request = unpack(packed)
        assert isinstance(request, Request)
        firm = firm_of(context)
        if isinstance(firm, Tagging):
            firm = firm.under(tag)
        return firm.answer(request, Memory(_Models(context.state), _Notes(context.state)))
    except Exception as fault:
        # The text may quote private data: it goes to the firm's own log, not to the operator.
        log.exception("node %s could not answer", context.node_id)
        return Fault(type(fault).__name__)


class _Models(MutableMapping[str, dict[str, Array]]):
    """The models a firm remembers, kept in Flower's Context.state."""

    def __init__(self, state: RecordDict) -> None:
        self._records = state.array_records

    def __getitem__(self, key: str) -> dict[str, Array]:
        return {name: array.numpy() for name, array in self._records[key].items()}

    def __setitem__(self, key: str, arrays: dict[str, Array]) -> None:
        self._records[key] = ArrayRecord({k: FlowerArray(v) for k, v in arrays.items()})

    def __delitem__(self, key: str) -> None:
        del self._records[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._records))

    def __len__(self) -> int:
        return len(self._records)


class _Notes(MutableMapping[str, str]):
    """The texts a firm remembers, kept in Flower's Context.state."""

    def __init__(self, state: RecordDict) -> None:
        self._record = state.config_records.setdefault("notes", ConfigRecord())

    def __getitem__(self, key: str) -> str:
        return str(self._record[key])

    def __setitem__(self, key: str, text: str) -> None:
        self._record[key] = text

    def __delitem__(self, key: str) -> None:
        del self._record[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)
