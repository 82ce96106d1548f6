"""The contract of Hypervisor, for the fake and for libvirt with real QEMU processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from managed.domain.errors import (
    AlreadyExists,
    Conflict,
    HypervisorError,
    HypervisorUnavailable,
    NotFound,
)
from managed.domain.servers import PowerState, ServerSpec
from managed.drivers.libvirt import Acceleration
from managed.ports import Hypervisor
from tests.support.hypervisors import FakeRig, LibvirtRig, Rig, libvirt_rig, new_rescue, new_spec
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def real_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtRig]:
    with libvirt_rig(tmp_path_factory.mktemp("node"), Acceleration.TCG) as rig:
        yield rig


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.vm)])
def rig(request: pytest.FixtureRequest) -> Rig:
    if request.param == "fake":
        return FakeRig()
    real: LibvirtRig = request.getfixturevalue("real_rig")
    return real


@pytest.fixture
def node(rig: Rig) -> Hypervisor:
    return rig.hypervisor


@pytest.fixture
def spec(node: Hypervisor) -> Iterator[ServerSpec]:
    """A server that exists, is powered off, and is gone after the test."""
    made = new_spec()
    node.create_server(made)
    yield made
    node.destroy_server(made.server_id)


def test_a_new_server_is_powered_off_and_empty(
    rig: Rig, node: Hypervisor, spec: ServerSpec
) -> None:
    assert node.power_state(spec.server_id) is PowerState.STOPPED
    assert rig.disk_holds(spec.server_id, 0)
    assert node.restore_points(spec.server_id) == []


def test_creating_again_changes_nothing(rig: Rig, node: Hypervisor, spec: ServerSpec) -> None:
    rig.fill_disk(spec.server_id, 0x11)
    node.create_server(spec)
    assert rig.disk_holds(spec.server_id, 0x11)
    assert node.power_state(spec.server_id) is PowerState.STOPPED


def test_creating_with_another_spec_is_refused(node: Hypervisor, spec: ServerSpec) -> None:
    for other in (
        replace(spec, memory_mib=512),
        replace(spec, disk_serial="srv-other"),
        replace(spec, forwards=()),
    ):
        with pytest.raises(AlreadyExists):
            node.create_server(other)
    node.create_server(spec)


def test_a_creation_that_fails_leaves_nothing(rig: Rig, node: Hypervisor) -> None:
    impossible = new_spec(disk_gib=10**10)
    with pytest.raises(HypervisorError):
        node.create_server(impossible)
    assert node.power_state(impossible.server_id) is PowerState.ABSENT
    assert rig.files(impossible.server_id) == []
    node.create_server(replace(impossible, disk_gib=2))
    node.destroy_server(impossible.server_id)


def test_destroying_removes_everything(rig: Rig, node: Hypervisor, spec: ServerSpec) -> None:
    node.create_restore_point(spec.server_id, "before")
    node.boot_rescue_image(spec.server_id, new_rescue())
    node.destroy_server(spec.server_id)
    assert node.power_state(spec.server_id) is PowerState.ABSENT
    assert spec.server_id not in node.rescue_sessions()
    assert rig.files(spec.server_id) == []
    node.destroy_server(spec.server_id)


def test_an_absent_server_is_not_found(node: Hypervisor) -> None:
    absent = new_spec().server_id
    assert node.power_state(absent) is PowerState.ABSENT
    for act in (
        node.start,
        node.shut_down,
        node.power_off,
        node.reset,
        lambda server_id: node.end_rescue(server_id, "one"),
        node.stats,
        node.console_tail,
        node.restore_points,
    ):
        with pytest.raises(NotFound):
            act(absent)
    with pytest.raises(NotFound):
        node.boot_rescue_image(absent, new_rescue())


def test_power(node: Hypervisor, spec: ServerSpec) -> None:
    for _ in range(2):
        node.start(spec.server_id)
        assert node.power_state(spec.server_id) is PowerState.RUNNING
    node.reset(spec.server_id)
    assert node.power_state(spec.server_id) is PowerState.RUNNING
    for _ in range(2):
        node.power_off(spec.server_id)
        assert node.power_state(spec.server_id) is PowerState.STOPPED


def test_a_stopped_server_has_no_reset_and_no_stats(node: Hypervisor, spec: ServerSpec) -> None:
    with pytest.raises(Conflict):
        node.reset(spec.server_id)
    with pytest.raises(Conflict):
        node.stats(spec.server_id)
    node.shut_down(spec.server_id)
    assert node.power_state(spec.server_id) is PowerState.STOPPED


def test_a_running_server_has_stats(node: Hypervisor, spec: ServerSpec) -> None:
    node.start(spec.server_id)
    wait_until(lambda: node.stats(spec.server_id).cpu_seconds > 0, timeout=20, what="CPU time")
    assert node.stats(spec.server_id).memory_bytes > 1024 * 1024


def test_rescue_takes_over_a_running_server(node: Hypervisor, spec: ServerSpec) -> None:
    node.start(spec.server_id)
    node.boot_rescue_image(spec.server_id, new_rescue("one"))
    assert node.power_state(spec.server_id) is PowerState.RESCUE
    assert node.rescue_sessions()[spec.server_id] == "one"
    for act in (node.start, node.shut_down, node.power_off, node.reset):
        with pytest.raises(Conflict):
            act(spec.server_id)
    assert node.power_state(spec.server_id) is PowerState.RESCUE


def test_the_same_rescue_session_goes_on_and_another_one_replaces_it(
    node: Hypervisor, spec: ServerSpec
) -> None:
    node.boot_rescue_image(spec.server_id, new_rescue("one"))
    console = "managed-rescue"
    wait_until(
        lambda: console in node.console_tail(spec.server_id), timeout=60, what="rescue prints"
    )
    node.boot_rescue_image(spec.server_id, new_rescue("one"))
    assert node.rescue_sessions()[spec.server_id] == "one"
    node.boot_rescue_image(spec.server_id, new_rescue("two"))
    assert node.rescue_sessions()[spec.server_id] == "two"
    assert node.power_state(spec.server_id) is PowerState.RESCUE


def test_the_end_of_rescue_leaves_the_server_as_it_was_defined(
    rig: Rig, node: Hypervisor, spec: ServerSpec
) -> None:
    before = rig.files(spec.server_id)
    node.boot_rescue_image(spec.server_id, new_rescue())
    for _ in range(2):
        node.end_rescue(spec.server_id, "session-1")
        assert node.power_state(spec.server_id) is PowerState.STOPPED
        assert spec.server_id not in node.rescue_sessions()
    assert [name for name in rig.files(spec.server_id) if ".log" not in name] == before
    node.create_server(spec)
    node.start(spec.server_id)
    assert node.power_state(spec.server_id) is PowerState.RUNNING


def test_ending_rescue_without_a_session_leaves_the_server_alone(
    node: Hypervisor, spec: ServerSpec
) -> None:
    node.start(spec.server_id)
    node.end_rescue(spec.server_id, "one")
    assert node.power_state(spec.server_id) is PowerState.RUNNING


def test_who_ends_an_earlier_session_leaves_the_present_one_alone(
    rig: Rig, node: Hypervisor, spec: ServerSpec
) -> None:
    node.boot_rescue_image(spec.server_id, new_rescue("two"))
    files = rig.files(spec.server_id)
    node.end_rescue(spec.server_id, "one")
    assert node.power_state(spec.server_id) is PowerState.RESCUE
    assert node.rescue_sessions()[spec.server_id] == "two"
    assert rig.files(spec.server_id) == files


def test_a_reboot_inside_rescue_ends_the_session(
    rig: Rig, node: Hypervisor, spec: ServerSpec
) -> None:
    node.boot_rescue_image(spec.server_id, new_rescue())
    rig.guest_reboots(spec.server_id)
    wait_until(
        lambda: node.power_state(spec.server_id) is PowerState.STOPPED,
        timeout=30,
        what="the session is over",
    )
    assert spec.server_id not in node.rescue_sessions()
    node.start(spec.server_id)
    assert not [name for name in rig.files(spec.server_id) if "rescue" in name]


def test_reverting_puts_a_stopped_disk_back(rig: Rig, node: Hypervisor, spec: ServerSpec) -> None:
    rig.fill_disk(spec.server_id, 0x11)
    node.create_restore_point(spec.server_id, "before")
    rig.fill_disk(spec.server_id, 0x22)
    node.create_restore_point(spec.server_id, "before")
    assert [point.name for point in node.restore_points(spec.server_id)] == ["before"]
    for _ in range(2):
        node.revert_to_restore_point(spec.server_id, "before")
        assert rig.disk_holds(spec.server_id, 0x11)
        rig.fill_disk(spec.server_id, 0x33)


def test_a_point_of_a_running_server_reverts_too(
    rig: Rig, node: Hypervisor, spec: ServerSpec
) -> None:
    node.start(spec.server_id)
    rig.fill_disk(spec.server_id, 0x11)
    for _ in range(2):
        node.create_restore_point(spec.server_id, "live")
    assert [point.name for point in node.restore_points(spec.server_id)] == ["live"]
    rig.fill_disk(spec.server_id, 0x22)
    assert node.power_state(spec.server_id) is PowerState.RUNNING
    node.revert_to_restore_point(spec.server_id, "live")
    assert node.power_state(spec.server_id) is PowerState.STOPPED
    assert rig.disk_holds(spec.server_id, 0x11)


@pytest.mark.parametrize("running", [False, True])
def test_deleting_a_point_keeps_the_present_state(
    rig: Rig, node: Hypervisor, spec: ServerSpec, running: bool
) -> None:
    if running:
        node.start(spec.server_id)
    node.create_restore_point(spec.server_id, "1")
    rig.fill_disk(spec.server_id, 0x22)
    node.create_restore_point(spec.server_id, "2")
    for _ in range(2):
        node.delete_restore_point(spec.server_id, "1")
    assert [point.name for point in node.restore_points(spec.server_id)] == ["2"]
    node.power_off(spec.server_id)
    assert rig.disk_holds(spec.server_id, 0x22)


def test_reverting_to_an_unknown_point_does_not_even_stop_the_server(
    node: Hypervisor, spec: ServerSpec
) -> None:
    node.start(spec.server_id)
    with pytest.raises(NotFound):
        node.revert_to_restore_point(spec.server_id, "never")
    assert node.power_state(spec.server_id) is PowerState.RUNNING


def test_no_revert_below_a_rescue_session(node: Hypervisor, spec: ServerSpec) -> None:
    node.create_restore_point(spec.server_id, "before")
    node.boot_rescue_image(spec.server_id, new_rescue())
    with pytest.raises(Conflict):
        node.revert_to_restore_point(spec.server_id, "before")


def test_a_node_that_is_away_is_unavailable_and_works_again_afterwards(
    rig: Rig, node: Hypervisor, spec: ServerSpec
) -> None:
    node.start(spec.server_id)
    rig.set_available(False)
    try:
        for act in (node.power_state, node.start, node.destroy_server):
            with pytest.raises(HypervisorUnavailable) as raised:
                act(spec.server_id)
            assert raised.value.retryable
        with pytest.raises(HypervisorUnavailable):
            node.create_server(new_spec())
    finally:
        rig.set_available(True)
    assert node.power_state(spec.server_id) is PowerState.RUNNING
