"""One event loop in a thread of its own per process, for connections that outlive a call.

A forked child (Celery's prefork pool) gets a new loop and new connections; it never touches those
that it inherited, for its parent still uses them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_inherited: list[asyncio.AbstractEventLoop] = []


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process; its thread is started at the first call."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="ssh", daemon=True).start()
        return _loop


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine in the background loop and wait for what comes of it.

    Interrupted (Ctrl-C, a time limit's exception), it cancels the work. Not for use in the
    loop's own thread.
    """
    future = asyncio.run_coroutine_threadsafe(work, background_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _forget_after_fork() -> None:
    """The child has the loop's memory but not its thread. The loop is kept, not collected: closing
    it would take the sockets out of the epoll instance that parent and child share.
    """
    global _loop, _lock
    _lock = threading.Lock()
    if _loop is not None:
        _inherited.append(_loop)
        _loop = None


os.register_at_fork(after_in_child=_forget_after_fork)
