"""What every Helpdesk keeps, the fake and the one that speaks to Zammad (against a stand-in)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from managed.domain.errors import HelpdeskRefused, HelpdeskUnavailable, InvalidInput
from managed.domain.replies import Reply
from managed.domain.secrets import Secret
from managed.drivers.fakes.helpdesk import FakeHelpdesk
from managed.drivers.helpdesks.zammad import ZammadHelpdesk
from managed.lab.helpdesk_stand_in import ZammadStandIn
from managed.ports import Helpdesk

TOKEN = "a token of the tests"
REPLY = Reply("0c9b8a7d-1", 81, "anna@example.org", "Re: Help", "Done: updates on shop.")


class Desk(Protocol):
    """What a test may do to either."""

    tickets: set[int]
    loses_answers: bool


@dataclass
class Stage:
    helpdesk: Helpdesk
    desk: Desk

    def stop(self) -> None:
        if isinstance(self.desk, FakeHelpdesk):
            self.desk.is_up = False
        elif isinstance(self.desk, ZammadStandIn):
            self.desk.failing_status = 503


@pytest.fixture
def zammad() -> Iterator[ZammadStandIn]:
    with ZammadStandIn(TOKEN, {81}).serving() as stand_in:
        yield stand_in


@pytest.fixture(params=["fake", "zammad"])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "fake":
        fake = FakeHelpdesk({81})
        return Stage(fake, fake)
    stand_in: ZammadStandIn = request.getfixturevalue("zammad")
    return Stage(ZammadHelpdesk(stand_in.url, Secret(TOKEN)), stand_in)


def test_an_answer_is_found_when_it_was_sent_and_not_before(stage: Stage) -> None:
    assert stage.helpdesk.find_reply(REPLY) is None
    article = stage.helpdesk.send(REPLY)
    assert stage.helpdesk.find_reply(REPLY) == article
    other = Reply("0c9b8a7d-2", 81, "", "Re: Help", "Another one.")
    assert stage.helpdesk.find_reply(other) is None
    assert stage.helpdesk.send(other) != article


def test_an_answer_that_was_lost_on_its_way_back_is_found(stage: Stage) -> None:
    stage.desk.loses_answers = True
    with pytest.raises(HelpdeskUnavailable):
        stage.helpdesk.send(REPLY)
    assert stage.helpdesk.find_reply(REPLY) is not None


def test_no_helpdesk_is_an_outage_and_no_ticket_a_refusal(stage: Stage) -> None:
    nowhere = Reply("0c9b8a7d-3", 82, "", "Re: Help", "Done.")
    for call in (stage.helpdesk.find_reply, stage.helpdesk.send):
        with pytest.raises(HelpdeskRefused):
            call(nowhere)
    stage.stop()
    for call in (stage.helpdesk.find_reply, stage.helpdesk.send):
        with pytest.raises(HelpdeskUnavailable):
            call(REPLY)


# ---------------------------------------------------------------- Zammad alone


def test_zammad_gets_an_email_or_a_note_as_plain_text_for_the_customer(
    zammad: ZammadStandIn,
) -> None:
    helpdesk = ZammadHelpdesk(zammad.url, Secret(TOKEN))
    helpdesk.send(REPLY)
    helpdesk.send(Reply("0c9b8a7d-2", 81, "", "Re: Help", "<b>not bold</b>"))
    email, note = zammad.articles
    assert (email["type"], email["to"], email["subject"]) == (
        "email",
        "anna@example.org",
        "Re: Help",
    )
    assert email["body"] == "Done: updates on shop.\n\nReference: 0c9b8a7d-1"
    assert (note["type"], note["content_type"], note["internal"]) == ("note", "text/plain", False)
    assert "to" not in note


def test_a_customer_who_quotes_an_answer_is_not_taken_for_it(zammad: ZammadStandIn) -> None:
    zammad.add(81, "Customer", f"> {REPLY.body}")
    assert ZammadHelpdesk(zammad.url, Secret(TOKEN)).find_reply(REPLY) is None


def test_a_wrong_token_is_an_outage_that_says_what_to_mend_and_not_the_token(
    zammad: ZammadStandIn,
) -> None:
    with pytest.raises(HelpdeskUnavailable) as refused:
        ZammadHelpdesk(zammad.url, Secret("wrong token")).send(REPLY)
    assert "MANAGED_ZAMMAD_TOKEN" in refused.value.hint
    assert "wrong token" not in str(refused.value.as_json())
    assert zammad.articles == []


def test_what_zammad_refuses_is_said_with_its_reason(zammad: ZammadStandIn) -> None:
    helpdesk = ZammadHelpdesk(zammad.url, Secret(TOKEN))
    with pytest.raises(HelpdeskRefused, match="an e-mail needs 'to'"):
        helpdesk.send(Reply("r", 81, "nobody", "Re: Help", "Done."))


def test_nobody_at_the_address_is_an_outage() -> None:
    stand_in = ZammadStandIn(TOKEN, {81})
    with stand_in.serving():
        helpdesk = ZammadHelpdesk(stand_in.url, Secret(TOKEN))
    with pytest.raises(HelpdeskUnavailable, match="ConnectError"):
        helpdesk.send(REPLY)


@pytest.mark.parametrize("url", ["support.example.org", "ftp://support.example.org", "https://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="not the address of a Zammad"):
        ZammadHelpdesk(url, Secret(TOKEN))
