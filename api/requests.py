"""What requests may hold. Unknown fields are refused: a misspelt option must not pass silently."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from managed.domain.servers import DISK_GIB, MEMORY_MIB, VCPUS, OperatingSystem

WEB_PORTS: Final = (80, 443)

Port = Annotated[int, Field(ge=1, le=65535)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=16_384)]
Address = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewNode(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "node-1",
                    "libvirt_uri": "qemu+ssh://root@node-1.example.org/system",
                    "storage_dir": "/var/lib/managed/disks",
                }
            ]
        }
    )
    name: str
    libvirt_uri: Annotated[str, StringConstraints(pattern=r"^qemu(\+[a-z0-9]+)?:///?\S+$")]
    storage_dir: Annotated[str, StringConstraints(pattern=r"^/\S*$", max_length=4096)]


class NewForward(Request):
    """A port of the server to be reached at the node's loopback; without `host_port` a free one."""

    guest_port: Port
    host_port: Annotated[int, Field(ge=1024, le=65535)] | None = None


class NewServer(Request):
    """A server to be made. `node` is a node's name or id and may be left out where there is one
    node only.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "shop",
                    "operating_system": "debian-12",
                    "vcpus": 2,
                    "memory_mib": 2048,
                    "disk_gib": 10,
                    "authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI… anna"],
                    "forwards": [{"guest_port": 80}],
                }
            ]
        }
    )
    name: str
    node: str | None = None
    operating_system: OperatingSystem = OperatingSystem.DEBIAN_12
    vcpus: int = Field(1, ge=VCPUS[0], le=VCPUS[1])
    memory_mib: int = Field(1024, ge=MEMORY_MIB[0], le=MEMORY_MIB[1])
    disk_gib: int = Field(10, ge=DISK_GIB[0], le=DISK_GIB[1])
    authorized_keys: list[Line] = Field(
        default_factory=list, max_length=100, description="The customer's SSH public keys."
    )
    forwards: list[NewForward] = Field(
        default_factory=lambda: [NewForward(guest_port=port) for port in WEB_PORTS],
        max_length=64,
        description="Ports to be reached at the node's loopback. SSH is always among them; when"
        " this is left out, HTTP and HTTPS too.",
    )


class Enrolment(Request):
    """An existing server. `host_key` is the line of its /etc/ssh/ssh_host_ed25519_key.pub."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "old-shop",
                    "address": "192.0.2.10",
                    "ssh_port": 22,
                    "ssh_user": "root",
                    "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…",
                }
            ]
        }
    )
    name: str
    address: Address
    ssh_port: Port = 22
    ssh_user: str = "root"
    host_key: Line


class CheckParameters(Request):
    """`urls` are asked from the server itself and have to answer well."""

    urls: list[Url] = Field(default_factory=list, max_length=20)


class PatchParameters(CheckParameters):
    only_security: bool = False
    reboot: Literal["when-needed", "never"] = "when-needed"


class HardenParameters(CheckParameters):
    extra_ports: list[Port] = Field(default_factory=list, max_length=100)
    firewall: bool = True


class RescueParameters(Request):
    hours: int = Field(4, ge=1, le=72, description="After that the session ends by itself.")


class RestoreParameters(CheckParameters):
    """Without either, the newest verified backup."""

    snapshot_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] | None = None
    as_of: AwareDatetime | None = None


class PowerParameters(Request):
    action: Literal["start", "stop", "reset"]


class NoParameters(Request):
    pass


class _NewJob(Request):
    run_key: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="Makes the job unique: the same key is never run twice."
    )


class NewPatch(_NewJob):
    kind: Literal["patch"]
    parameters: PatchParameters = PatchParameters()


class NewHarden(_NewJob):
    kind: Literal["harden"]
    parameters: HardenParameters = HardenParameters()


class NewBackup(_NewJob):
    kind: Literal["backup"]
    parameters: NoParameters = NoParameters()


class NewRescue(_NewJob):
    kind: Literal["rescue"]
    parameters: RescueParameters = RescueParameters(hours=4)


class NewUnrescue(_NewJob):
    kind: Literal["unrescue"]
    parameters: NoParameters = NoParameters()


class NewRestore(_NewJob):
    kind: Literal["restore"]
    parameters: RestoreParameters = RestoreParameters()


class NewCheck(_NewJob):
    kind: Literal["check"]
    parameters: CheckParameters = CheckParameters()


class NewPower(_NewJob):
    kind: Literal["power"]
    parameters: PowerParameters


class NewEnrol(_NewJob):
    kind: Literal["enrol"]
    parameters: NoParameters = NoParameters()


JobRequest = Annotated[
    NewPatch
    | NewHarden
    | NewBackup
    | NewRescue
    | NewUnrescue
    | NewRestore
    | NewCheck
    | NewPower
    | NewEnrol,
    Field(discriminator="kind"),
]


class Cancellation(Request):
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)] = "cancelled"
