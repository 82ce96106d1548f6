"""Where cells listen."""

from __future__ import annotations

import ipaddress

from managed.lab.cell_network import choose, network_commands


def test_a_cell_has_a_loopback_address_of_its_own() -> None:
    networks = [choose(f"/state/cells/{number}", None, False) for number in range(200)]
    assert all(ipaddress.ip_address(network.address).is_loopback for network in networks)
    assert len({network.address for network in networks}) > 195
    assert choose("/state/cells/1", None, False) == networks[1]
    assert networks[0].port > 1024


def test_an_isolated_cell_is_in_the_benchmark_range_and_touches_only_its_own_namespace() -> None:
    network = choose("/state/cells/one", None, True)
    assert ipaddress.ip_address(network.address) in ipaddress.ip_network("198.18.0.0/15")
    assert ipaddress.ip_interface(f"{network.gateway}/30").network == (
        ipaddress.ip_interface(f"{network.address}/30").network
    )
    names = [word for argv in network_commands(network) for word in argv if word.startswith("mc")]
    assert max(map(len, names)) <= 15


def test_a_given_address_is_used() -> None:
    assert choose("/state/cells/one", "127.1.2.3", False).address == "127.1.2.3"
