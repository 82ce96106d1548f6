"""How slow a node's servers are is asked of the node, and not waited for where it hangs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from managed.domain.errors import HypervisorUnavailable
from workers import time_scales as module
from workers.time_scales import TimeScales

pytestmark = pytest.mark.timeout(60)


class Node:
    """Says `scale`; with None it does not answer. Before it `may_answer` it says nothing."""

    def __init__(self, scale: float | None) -> None:
        self.scale = scale
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def ask(self, _: str) -> float:
        self.asked += 1
        self.may_answer.wait()
        if self.scale is None:
            raise HypervisorUnavailable("libvirt does not answer")
        return self.scale


def test_a_node_is_asked_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(6.0)

    async def ask() -> None:
        scales = TimeScales(node.ask)
        many = await asyncio.gather(*(scales.of("one") for _ in range(20)))
        assert (set(many), node.asked) == ({6.0}, 1)
        assert await scales.of("one") == 6.0
        assert node.asked == 1
        monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
        assert await scales.of("two") == 6.0
        assert await scales.of("two") == 6.0
        assert node.asked == 3

    asyncio.run(ask())


def test_without_a_node_nobody_is_asked() -> None:
    node = Node(6.0)

    async def ask() -> None:
        assert await TimeScales(node.ask).of(None) == 1.0

    asyncio.run(ask())
    assert node.asked == 0


def test_a_node_that_does_not_answer_counts_as_it_did_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    node = Node(None)

    async def ask() -> None:
        scales = TimeScales(node.ask)
        assert await scales.of("one") == 1.0
        node.scale = 6.0
        assert await scales.of("one") == 6.0
        node.scale = None
        assert await scales.of("one") == 6.0

    asyncio.run(ask())
    assert node.asked == 3


def test_a_hung_node_is_asked_by_one_thread_and_believed_when_it_answers_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    node = Node(6.0)
    node.may_answer.clear()

    async def ask() -> None:
        scales = TimeScales(node.ask)
        assert [await scales.of("one") for _ in range(3)] == [1.0] * 3
        assert node.asked == 1
        node.may_answer.set()
        monkeypatch.setattr(module, "_WAIT_SECONDS", 30.0)
        assert await scales.of("one") == 6.0
        assert node.asked == 1, "it was the first question's answer"

    asyncio.run(ask())
