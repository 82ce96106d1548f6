"""An installation with several servers; on each of them plans are carried out, one by one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from images.sources import resolve_sources
from managed.lab.cell_image import build_cell_root
from managed.lab.cells import cells_down, start_cell
from tests.kill_matrix.boundaries import Holder
from tests.kill_matrix.plans import Carried, Plan
from tests.kill_matrix.running import carry_out
from tests.kill_matrix.servers import ManagedCell, managed_cell
from tests.kill_matrix.victims import Killer
from tests.support.apt_repository import apt_repositories
from tests.support.clean_after import cleaned_after_death
from tests.support.installation import live_installation

# Shorter than usual, so that a job is taken over after seconds and not after half a minute.
_LEASE_SECONDS = 15
_RESEND_SECONDS = 10


@contextmanager
def managed_cells(number: int, cells_state: Path, directory: Path) -> Iterator[list[ManagedCell]]:
    """So many enrolled cells of an installation of their own; nothing of it stays. `cells_state`
    keeps the cells' root filesystem for the next time.
    """
    names = [f"lane-{index}" for index in range(number)]
    root = build_cell_root(cells_state, "debian-12", resolve_sources(None, None, None, print))
    with ExitStack() as stack:
        state = directory / "cells-of-the-matrix"
        stack.enter_context(cleaned_after_death(state))
        stack.callback(cells_down, state)
        installation = stack.enter_context(
            live_installation(
                worker_processes=number,
                lease_seconds=_LEASE_SECONDS,
                resend_seconds=_RESEND_SECONDS,
            )
        )
        Holder.install(installation.cluster.connection)
        repositories = stack.enter_context(apt_repositories(directory / "packages", names))
        cells = [start_cell(state, root, name) for name in names]
        killer = Killer(installation)
        yield [
            managed_cell(installation, killer, cell, repository)
            for cell, repository in zip(cells, repositories, strict=True)
        ]


def carry_out_all(
    plans: Iterable[Plan],
    servers: list[ManagedCell],
    report: Callable[[Carried], None],
) -> list[Carried]:
    """All plans, as many at a time as there are servers; `report` is called after each."""
    waiting: queue.SimpleQueue[Plan] = queue.SimpleQueue()
    for plan in plans:
        waiting.put(plan)
    done: list[Carried] = []
    lock = threading.Lock()

    def work(server: ManagedCell) -> None:
        while True:
            try:
                plan = waiting.get_nowait()
            except queue.Empty:
                return
            carried = carry_out(plan, server)
            with lock:
                done.append(carried)
                report(carried)

    threads = [threading.Thread(target=work, args=(server,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done
