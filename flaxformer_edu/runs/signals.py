"""SIGTERM and Ctrl-C as a request to stop, which the loop grants when it can do so cleanly."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """`signal` is the first signal that arrived, None as long as there was none."""

    signal: int | None = None

    def leave(self) -> NoReturn:
        """Leave the program with the exit status that shells give to this signal."""
        raise SystemExit(128 + (self.signal or 0))


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note the first SIGTERM or Ctrl-C instead of dying of it; the second has its usual effect, at once.

    Only the main thread can do that: in another one, signals keep their effect.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, _: object) -> None:
        request.signal = number
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
