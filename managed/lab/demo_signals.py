"""How signals end the demo: the first one interrupts it, and none disturbs what then cleans up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A terminal that is closed sends HUP.
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """The first signal in this block raises KeyboardInterrupt. From then on, and after the block,
    signals do nothing. One that was ignored before (nohup) does nothing either.
    """
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        _disturb_no_more()


def _interrupt(*_: object) -> None:
    # Here and not where it is caught: the next one may come before that.
    _disturb_no_more()
    raise KeyboardInterrupt


def _disturb_no_more() -> None:
    # Not SIG_IGN, which programs that are started later would inherit.
    for number in _ENDING:
        signal.signal(number, lambda *_: None)
