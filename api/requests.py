"""What requests may hold. Unknown fields are refused: a misspelt option must not pass silently."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from api.examples import CUSTOMER_KEY, HOST_KEY
from api.moments import Moment
from managed.domain.file_restores import MOST_PATHS, RestoreTarget
from managed.domain.jobs import CLOCKS_KEYS
from managed.domain.requests import REQUESTS_KEYS
from managed.domain.servers import DISK_GIB, MEMORY_MIB, VCPUS, OperatingSystem

Port = Annotated[int, Field(ge=1, le=65535)]
PortAndProtocol = Annotated[
    str,
    StringConstraints(
        pattern=r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]"
        r"|6553[0-5])/(tcp|udp)$"
    ),
]
Name = Annotated[str, Field(max_length=63)]
Text = Annotated[str, StringConstraints(max_length=100)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=16_384)]
Address = Annotated[str, StringConstraints(min_length=1, max_length=253)]
SnapshotId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048)]
Urls = Annotated[
    list[Url],
    Field(
        max_length=20,
        description="Asked from the server itself; each has to answer well.",
        examples=[["http://127.0.0.1/"]],
    ),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_control_characters(cls, given: Any) -> Any:
        """NUL and its like have no place in any field, and databases refuse some of them."""
        values = given.values() if isinstance(given, dict) else ()
        texts = [
            text for value in values for text in (value if isinstance(value, list) else [value])
        ]
        if any(isinstance(text, str) and not text.rstrip("\r\n").isprintable() for text in texts):
            raise ValueError("control characters are not allowed")
        return given


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
    name: Name
    libvirt_uri: Annotated[
        str, StringConstraints(pattern=r"^qemu(\+[a-z0-9]+)?://\S+$", max_length=2048)
    ]
    storage_dir: Annotated[str, StringConstraints(pattern=r"^/\S*$", max_length=1024)]


class NewForward(Request):
    """A port of the server to be reached at the node's loopback; without `host_port` a free one."""

    guest_port: Port
    host_port: Annotated[int, Field(ge=1024, le=65535)] | None = None


class NewServer(Request):
    """A server to be made. `node_id` is a node's id or name and may be left out where there is one
    node only. `forwards` are for user-mode networking, by default SSH and port 80.
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
                    "authorized_keys": [f"{CUSTOMER_KEY} anna"],
                    "forwards": [{"guest_port": 80}],
                }
            ]
        }
    )
    name: Name
    node_id: Name | None = None
    operating_system: OperatingSystem = OperatingSystem.DEBIAN_12
    vcpus: int = Field(1, ge=VCPUS[0], le=VCPUS[1])
    memory_mib: int = Field(1024, ge=MEMORY_MIB[0], le=MEMORY_MIB[1])
    disk_gib: int = Field(10, ge=DISK_GIB[0], le=DISK_GIB[1])
    authorized_keys: list[Line] = Field(
        default_factory=list, max_length=100, description="The customer's SSH public keys."
    )
    forwards: list[NewForward] = Field(
        default_factory=lambda: [NewForward(guest_port=22), NewForward(guest_port=80)],
        max_length=64,
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
                    "host_key": HOST_KEY,
                    "operating_system": "debian-12",
                }
            ]
        }
    )
    name: Name
    address: Address
    ssh_port: Port = 22
    ssh_user: Name = "root"
    host_key: Line
    operating_system: Text = ""


def _not_the_services(run_key: str) -> str:
    for own in (CLOCKS_KEYS, REQUESTS_KEYS):
        if run_key.startswith(own):
            raise ValueError(f"keys that begin with {own} are the service's own")
    return run_key


RunKey = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(_not_the_services)
]


class JobFields(Request):
    """What every kind of job takes besides its own parameters."""

    run_key: RunKey | None = Field(
        None,
        description="Makes the job unique: the same key is never run twice by jobs of this kind on"
        f" this server. It does not begin with `{CLOCKS_KEYS}` or `{REQUESTS_KEYS}`.",
    )


class NewPatch(JobFields):
    """Install updates; reboot when they need it."""

    kind: Literal["patch"]
    only_security: bool = False
    reboot: Literal["when-needed", "never"] = "when-needed"
    urls: Urls = Field(default_factory=list)


class NewHarden(JobFields):
    """sshd, kernel settings, firewall, login defaults. Ports in use stay open."""

    kind: Literal["harden"]
    extra_ports: list[PortAndProtocol] = Field(
        default_factory=list, max_length=100, examples=[["8443/tcp"]]
    )
    firewall: bool = True


class NewBackup(JobFields):
    kind: Literal["backup"]


class NewCheck(JobFields):
    """Is the server well? Changes nothing."""

    kind: Literal["check"]
    urls: Urls = Field(default_factory=list)


class NewEnrol(JobFields):
    """Log in to a server that was enrolled, prepare it, look at it."""

    kind: Literal["enrol"]


class NewRescue(JobFields):
    """Boot the rescue image over the server's own disk."""

    kind: Literal["rescue"]
    hours: int = Field(4, ge=1, le=72, description="After that the session ends by itself.")


class NewUnrescue(JobFields):
    """End the rescue session and boot from the server's own disk."""

    kind: Literal["unrescue"]


class NewRestore(JobFields):
    """Bare-metal restore. Without `snapshot_id` and `as_of`: the newest verified backup."""

    kind: Literal["restore"]
    snapshot_id: SnapshotId | None = None
    as_of: Moment | None = Field(None, description="The newest backup not after this.")


class NewRestoreFiles(JobFields):
    """Files and folders of a backup, to a server that runs. `beside`: into a new folder below
    /var/restored. `in-place`: over what is there now, after a safety snapshot of it; what is not in
    the backup stays. Without `snapshot_id` and `as_of`: from the newest verified backup. With
    `from_server` from the backup of another server of the same customer.
    """

    kind: Literal["restore-files"]
    paths: list[Annotated[str, StringConstraints(min_length=1, max_length=4096)]] = Field(
        min_length=1, max_length=MOST_PATHS, description="Absolute paths, as the backup has them."
    )
    snapshot_id: SnapshotId | None = None
    as_of: Moment | None = Field(None, description="The newest backup not after this.")
    target: RestoreTarget = RestoreTarget.BESIDE
    from_server: Name | None = Field(None, description="Its id or name.")


class NewPower(JobFields):
    kind: Literal["power"]
    action: Literal["start", "stop", "reset"]


JobRequest = Annotated[
    NewPatch
    | NewHarden
    | NewBackup
    | NewCheck
    | NewEnrol
    | NewRescue
    | NewUnrescue
    | NewRestore
    | NewRestoreFiles
    | NewPower,
    Field(discriminator="kind"),
]


class Cancellation(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the customer called"}]})
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)] = "cancelled"
