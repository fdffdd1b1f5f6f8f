"""The desk at its Unix socket."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parties.desk.desk import Desk
from parties.desk.frames import READY, receive, send
from parties.exchange import ExchangeError, FedpactError

log = logging.getLogger("fedpact.desk")

MOST_LINKS = 64  # connections at a time
IDLE_S = 60.0  # how long one may be silent, in a question or between two
LOOK_S = 0.2  # how often it looks whether it shall stop
FINISH_S = 3.0  # how long an answer may take to be finished when the desk stops


@contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, in the place of what they do elsewhere."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_until_told(desk: Desk, path: Path) -> None:
    """A desk's process: serve until SIGTERM or SIGINT, and let go of everything.

    Raises:
        FedpactError: another desk serves there, or no socket can be made.
    """
    with told_to_stop() as stop:
        finished = serve(desk, path, stop)
    desk.close()
    if not finished:
        # No thread can be stopped in the middle of a training, and torch aborts a process that
        # ends around one. All that counts is on the disk.
        logging.shutdown()
        os._exit(0)


def serve(desk: Desk, path: Path, stop: threading.Event) -> bool:
    """Answer at a Unix socket until `stop` is set; then leave no socket behind.

    Returns:
        Whether all answers were finished, within some seconds; one that was not is lost, and will
        be asked for again.

    Raises:
        FedpactError: another desk serves there, or no socket can be made.
    """
    with _held(path), _listening(path) as listener:
        log.info("the desk of %s answers at %s", desk.name, path)
        links: list[threading.Thread] = []
        while not stop.is_set():
            links = [link for link in links if link.is_alive()]
            try:
                link, _ = listener.accept()
            except TimeoutError:
                continue
            if len(links) >= MOST_LINKS:
                log.warning("more than %d connections: one was closed", MOST_LINKS)
                link.close()
                continue
            links.append(threading.Thread(target=_converse, args=(desk, link, stop), daemon=True))
            links[-1].start()
    deadline = time.monotonic() + FINISH_S
    while desk.busy and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    log.info("the desk of %s has stopped", desk.name)
    return not desk.busy


def _converse(desk: Desk, link: socket.socket, stop: threading.Event) -> None:
    """Answer what one connection asks, one question after the other."""
    link.settimeout(IDLE_S)
    with link:
        try:
            link.sendall(READY)
            while not stop.is_set() and (asked := receive(link)) is not None:
                tag, frame = asked
                send(link, tag, desk.reply(frame, tag))
        except ExchangeError as fault:
            # What follows cannot be told from what came: there is no going on.
            desk.note(f"a connection was closed: {fault}")
        except OSError as fault:
            log.warning("a connection broke: %s", fault)
        except Exception:
            log.exception("the desk of %s could not answer", desk.name)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the place of a socket, so that nobody replaces one that is in use."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as fault:
        raise _no_socket(path, fault) from fault
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as fault:
        raise FedpactError(
            f"A desk answers at {path} already; one serves a firm. Stop that one first, or go on "
            "with it."
        ) from fault
    finally:
        os.close(place)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket for this user alone; one that a killed desk left is replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)  # born with mode 0600: never open to others, not for a moment
        try:
            if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
                raise FileExistsError(17, "something else is there")
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen(MOST_LINKS)
        except OSError as fault:
            raise _no_socket(path, fault) from fault
        finally:
            os.umask(before)
        listener.settimeout(LOOK_S)
        try:
            yield listener
        finally:
            with suppress(OSError):
                path.unlink()


def _no_socket(path: Path, fault: OSError) -> FedpactError:
    return FedpactError(
        f"No socket can be made at {path} ({fault.strerror or fault}); legal is a path of at most "
        "107 bytes in a folder of the firm's. Move the folder, or what is in the way."
    )
