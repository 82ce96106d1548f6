"""Which firewalls are left in charge; rule sets as nft and iptables-save printed them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.playbooks.scripts import role_script

RECORDED = Path(__file__).parent / "data"
look = role_script("harden", "look_at_firewalls")


@pytest.mark.parametrize(
    ("recorded", "foreign"),
    [
        ("policy", "ip6 filter"),
        ("firewalld", "inet firewalld"),
        ("handed_on", "ip filter"),
        ("interface_closed", "inet wan"),
        ("other_ports_closed", "inet ports"),
        ("single_drops", ""),
    ],
)
def test_a_firewall_that_drops_the_rest_is_named(recorded: str, foreign: str) -> None:
    entries = json.loads((RECORDED / f"{recorded}.json").read_text())["nftables"]

    assert look.foreign_chain(entries) == foreign


@pytest.mark.parametrize(
    ("rules", "foreign"),
    [
        (":INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n", True),
        (":INPUT ACCEPT [0:0]\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n", True),
        (":INPUT ACCEPT [0:0]\n:mine - [0:0]\n-A INPUT -j mine\n-A mine ! -i lo -j DROP\n", True),
        ('-A INPUT -m comment --comment "the rest" -j DROP\n', True),
        (":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD -j DROP\n", False),
        ("-A INPUT -s 192.0.2.1/32 -j DROP\n-A INPUT -m state --state INVALID -j DROP\n", False),
        ("-A INPUT -p tcp -m multiport --dports 22 -j f2b\n-A f2b -j DROP\n", False),
        ("-A INPUT -j f2b\n-A f2b -s 192.0.2.1/32 -j REJECT\n-A f2b -j RETURN\n", False),
        ("", False),
    ],
)
def test_saved_rules_that_drop_the_rest_name_their_tool(rules: str, foreign: bool) -> None:
    assert look.saved_firewall("iptables-legacy", rules) == ("iptables-legacy" if foreign else "")


@pytest.mark.parametrize(
    ("ufw", "firewalld", "manager"),
    [
        ("Status: active\n", None, "ufw"),
        ("Status: inactive\n", None, ""),
        (None, "running\n", "firewalld"),
        (None, None, ""),
    ],
)
def test_a_program_that_looks_after_the_firewall_is_named(
    ufw: str | None, firewalld: str | None, manager: str
) -> None:
    assert look.foreign_manager(ufw, firewalld) == manager
