"""The `Hypervisor` port over libvirt and QEMU, for one node whose files this process can reach."""

from managed.drivers.libvirt.driver import LibvirtHypervisor
from managed.drivers.libvirt.node import Acceleration, LibvirtNode

__all__ = ["Acceleration", "LibvirtHypervisor", "LibvirtNode"]
