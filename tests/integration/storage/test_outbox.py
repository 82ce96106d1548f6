"""Deliveries are put together once, and only the present try speaks for one."""

from __future__ import annotations

from datetime import timedelta

from managed.domain.notifications import LARGEST_DIGEST, TargetKind, Telling
from managed.storage.database import writing
from managed.storage.incidents import note
from managed.storage.outbox import Outbox
from tests.support.notification_stage import Stage, stage

__all__ = ["stage"]

PATIENCE = timedelta(minutes=5)


def due(outbox: Outbox, stage: Stage) -> str:
    (delivery_id,) = outbox.due(TargetKind.EMAIL, stage.now)
    return delivery_id


def test_a_try_that_was_believed_to_be_lost_does_not_speak_for_the_next_one(stage: Stage) -> None:
    outbox = stage.installation.outbox
    stage.add_mail()
    stage.end()
    outbox.gather(stage.now)
    lost = outbox.take(due(outbox, stage), stage.now, PATIENCE)
    assert lost is not None
    assert outbox.take(lost.delivery_id, stage.now, PATIENCE) is None, "it is being tried"

    stage.bench.clock.now += PATIENCE
    second = outbox.take(due(outbox, stage), stage.now, PATIENCE)
    assert second is not None
    assert (second.delivery_id, second.attempt) == (lost.delivery_id, 2)
    outbox.mark_failed(lost, "too late to tell", None, stage.now)
    assert stage.statuses() == [Telling.WAITING]
    outbox.mark_sent(second, stage.now)
    outbox.mark_failed(second, "said twice", None, stage.now)
    assert stage.statuses() == [Telling.SENT]


def test_what_is_too_much_for_one_digest_comes_in_the_next(stage: Stage) -> None:
    outbox = stage.installation.outbox
    stage.add_mail()
    many = LARGEST_DIGEST + 7
    with writing(stage.bench.database) as connection:
        note(connection, (stage.incident(number) for number in range(many)))
    told = []
    for _ in range(2):
        outbox.gather(stage.now)
        delivery = outbox.take(due(outbox, stage), stage.now, PATIENCE)
        assert delivery is not None
        told.append(outbox.notices(delivery))
        outbox.mark_sent(delivery, stage.now)
        stage.bench.clock.pass_time(minutes=5)
    assert [len(notices) for notices in told] == [LARGEST_DIGEST, 7]
    assert len({notice.notice_id for notices in told for notice in notices}) == many
