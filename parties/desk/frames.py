"""Frames over the socket between a firm's app and its desk.

A frame travels under the tag of its question: size of the tag (4 bytes), size of the frame (8
bytes), tag, frame.
"""

from __future__ import annotations

import socket

from parties.exchange import ExchangeError
from parties.exchange.frames import MOST_FRAME

MOST_TAG = 512  # bytes
READY = b"!"  # what a desk says first: a connection without it reached no desk that lives
PIECE = 2**20  # bytes read from a socket at once: memory grows with what came, not what was claimed


def send(link: socket.socket, tag: str, frame: bytes) -> None:
    """Send a frame under its tag."""
    name = tag.encode()
    link.sendall(len(name).to_bytes(4, "little") + len(frame).to_bytes(8, "little") + name)
    link.sendall(frame)


def receive(link: socket.socket) -> tuple[str, bytearray] | None:
    """The next frame with its tag; None if the other side has closed, and sent none.

    Raises:
        ExchangeError: sizes that are not legal, or a tag that is no text.
        ConnectionError: the connection broke in the middle.
    """
    begin = link.recv(1)
    if not begin:
        return None
    sizes = begin + _exactly(link, 11)
    name, size = int.from_bytes(sizes[:4], "little"), int.from_bytes(sizes[4:], "little")
    if name > MOST_TAG or size > MOST_FRAME:
        raise ExchangeError(
            f"a frame of {size} bytes under a tag of {name}; legal are {MOST_FRAME} and {MOST_TAG}."
        )
    try:
        tag = _exactly(link, name).decode()
    except UnicodeDecodeError as fault:
        raise ExchangeError("a tag is not text in UTF-8.") from fault
    return tag, _exactly(link, size)


def _exactly(link: socket.socket, size: int) -> bytearray:
    content = bytearray()
    while len(content) < size:
        piece = link.recv(min(size - len(content), PIECE))
        if not piece:
            raise ConnectionResetError("the other side closed in the middle of a message")
        content += piece
    return content
