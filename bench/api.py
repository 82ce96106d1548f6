"""Is the API as quick with 100,000 servers and 5 million jobs as with 100 servers?

The product is the service over the large fleet, the rival the same service over a small one. Both
are asked in turn, so that whatever else this machine does slows both. The ratio is that of the
99th percentiles, of the kind of request in which it is worst; *Tonight*, whose numbers are the
fleet's, is told beside it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import text

from bench._fleet import Fleet
from bench._report import machine, percentile, report, say
from bench._service import api
from managed.domain.errors import Json
from managed.storage.database import migrate, open_database
from tests.support.postgres import postgres

GOAL: Final = 1.5
_WARM_UP: Final = 30


@dataclass
class Side:
    """One of the two services, and what it took, in milliseconds, by kind of request."""

    client: httpx.Client
    names: list[str]
    job_ids: list[str]
    random: random.Random
    took: dict[str, list[float]]

    def ask(self, kind: str, *, counts: bool) -> None:
        begin = time.perf_counter()
        for path, query in _REQUESTS[kind](self):
            answer = self.client.get(path, params=query)
            answer.raise_for_status()
        if counts:
            self.took.setdefault(kind, []).append((time.perf_counter() - begin) * 1000)

    def p99(self) -> dict[str, Json]:
        return {f"{kind}_p99_ms": round(percentile(t, 0.99), 2) for kind, t in self.took.items()}


Requests = list[tuple[str, dict[str, Any]]]


def _list(side: Side) -> Requests:
    """Pages in the middle of what there is, as well as first ones."""
    query: dict[str, Any] = side.random.choice(
        [{}, {"kind": "patch"}, {"status": "failed"}, {"status": "running"}]
    )
    deep = {"cursor": side.random.choice(side.job_ids)} if side.random.random() < 0.5 else {}
    return [
        ("/v1/servers", {"cursor": side.random.choice(side.names)}),
        ("/v1/jobs", {**query, **deep}),
    ]


def _search(side: Side) -> Requests:
    """Short pages, which the small fleet fills as well: equal answers, whatever there is."""
    name = side.random.choice(side.names)
    begins = side.random.choice([name, name[:7], name[:3], "10.0.0.1", "10.", "anna", "BEA 1"])
    return [("/v1/servers", {"search": begins, "limit": 10})]


def _page(side: Side) -> Requests:
    name = side.random.choice(side.names)
    return [
        (f"/v1/servers/{name}", {}),
        ("/v1/jobs", {"server_id": name, "limit": 20}),
        (f"/v1/servers/{name}/snapshots", {}),
    ]


def _panel_server(side: Side) -> Requests:
    return [(f"/panel/servers/{side.random.choice(side.names)}", {})]


def _panel_tonight(_: Side) -> Requests:
    return [("/panel/tonight", {})]


_REQUESTS: Final[dict[str, Callable[[Side], Requests]]] = {
    "list": _list,
    "search": _search,
    "server_page": _page,
    "panel_server": _panel_server,
    "panel_tonight": _panel_tonight,
}
_TOLD_BESIDE: Final = {"panel_tonight"}


@contextmanager
def side(url: str, fleet: Fleet, folder: Path, seed: int) -> Iterator[Side]:
    engine = open_database(url)
    migrate(engine)
    began = time.monotonic()
    fleet.load(engine)
    say(f"{fleet.servers} servers, {fleet.jobs} jobs: loaded in {time.monotonic() - began:.0f} s")
    with engine.connect() as connection:
        names = list(
            connection.scalars(text("SELECT name FROM servers ORDER BY random() LIMIT 500"))
        )
        ids = list(connection.scalars(text("SELECT id FROM jobs TABLESAMPLE BERNOULLI (1)")))[:5000]
        ids = ids or list(connection.scalars(text("SELECT id FROM jobs LIMIT 500")))
    engine.dispose()
    with api(url, folder) as client:
        yield Side(client, names, ids, random.Random(seed), {})  # noqa: S311


def compare(large: Fleet, small: Fleet, requests: int) -> None:
    """Measure both in turn, and report the worst ratio of any kind of request."""
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="managed-bench-")))
        sides = [
            held.enter_context(side(held.enter_context(postgres()), fleet, folder / name, 1))
            for name, fleet in (("large", large), ("small", small))
        ]
        for number in range(-_WARM_UP, requests):
            for kind in _REQUESTS:
                for one in sides:
                    one.ask(kind, counts=number >= 0)
    product, rival = sides
    ratios = {
        kind: percentile(product.took[kind], 0.99) / percentile(rival.took[kind], 0.99)
        for kind in _REQUESTS
    }
    say(", ".join(f"{kind}: {ratio:.2f} times" for kind, ratio in ratios.items()))
    worst = max(ratio for kind, ratio in ratios.items() if kind not in _TOLD_BESIDE)
    report(
        "api",
        {"servers": large.servers, "jobs": large.jobs, **product.p99()} | machine(),
        {"servers": small.servers, "jobs": small.jobs, **rival.p99()},
        round(worst, 3),
        f"p99 at most {GOAL} times that of {small.servers} servers",
        worst <= GOAL,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--servers", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=5_000_000)
    parser.add_argument("--small-servers", type=int, default=100)
    parser.add_argument("--small-jobs", type=int, default=5_000)
    parser.add_argument("--requests", type=int, default=1_000, help="of each kind")
    given = parser.parse_args()
    compare(
        Fleet(given.servers, given.jobs),
        Fleet(given.small_servers, given.small_jobs),
        given.requests,
    )


if __name__ == "__main__":
    main()
