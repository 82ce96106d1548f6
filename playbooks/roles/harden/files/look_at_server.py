"""Prints as JSON what hardening must know so that it locks nobody out. Changes nothing."""

import glob
import json
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess
import sys

FIRST_EPHEMERAL_PORT = 32768
RULES = ("/etc/managed/firewall.nft", "/etc/managed/firewall-trial.nft")
DHCP_CLIENT = {"68/udp", "546/udp"}


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def is_loopback(address):
    """Addresses as the kernel prints them: 32-bit words in its own byte order."""
    words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    if len(packed) == 4:
        return packed[0] == 127
    text = socket.inet_ntop(socket.AF_INET6, packed)
    return text == "::1" or text.startswith("::ffff:127.")


def public_ports():
    """Ports that something listens on beyond loopback, and those that were open before (a service
    may just be restarting). UDP sockets with a random port are clients, unless they are the
    kernel's own (WireGuard), which belong to no process.
    """
    owned = owned_sockets()
    ports = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        protocol = table.rstrip("6")
        for line in read(f"/proc/net/{table}").splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            listens = fields[3] == ("0A" if protocol == "tcp" else "07")
            number = int(port, 16)
            is_client = protocol == "udp" and number >= FIRST_EPHEMERAL_PORT and fields[9] in owned
            if listens and number and not is_loopback(address) and not is_client:
                ports.add(f"{number}/{protocol}")
    return (ports | opened_before()) - DHCP_CLIENT | {f"{port}/tcp" for port in ssh_ports()}


def owned_sockets():
    inodes = set()
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes


def opened_before():
    found = set()
    for path in RULES:
        for protocol, ports in re.findall(r"(tcp|udp) dport \{ ([\d, ]+) \}", read(path)):
            found.update(f"{port.strip()}/{protocol}" for port in ports.split(","))
    return found


def ssh_ports():
    """Where sshd is configured to listen, and where this very login came in."""
    ports = set(re.findall(r"^port (\d+)$", output("/usr/sbin/sshd", "-T"), re.MULTILINE))
    ports.update(
        re.findall(
            r"^ListenStream=(?:.*:)?(\d+)$", output("systemctl", "cat", "ssh.socket"), re.MULTILINE
        )
    )
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return ports | {connection[3]} if len(connection) == 4 else ports


def foreign_firewall():
    """Names a firewall that is the server's own and already turns traffic away; a second one
    would drop what its owner allows there. Without CAP_NET_ADMIN nothing can be seen.
    """
    try:
        rules = json.loads(output("nft", "--json", "list", "chains") or "{}")
    except ValueError:
        return ""
    for entry in rules.get("nftables", []):
        chain = entry.get("chain", {})
        if chain.get("hook") == "input" and chain.get("policy") == "drop":
            name = f"{chain.get('family')} {chain.get('table')}"
            if name != "inet managed":
                return name
    return ""


def authorized_keys():
    """How many keys may log in as a person or root."""
    count = 0
    for user in people():
        for name in ("authorized_keys", "authorized_keys2"):
            lines = read(os.path.join(user.pw_dir, ".ssh", name)).splitlines()
            count += sum(1 for line in lines if line.strip() and not line.startswith("#"))
    return count


def people():
    shells = ("nologin", "false", "sync")
    return [user for user in pwd.getpwall() if not user.pw_shell.endswith(shells)]


def has_password():
    """Can a person or root log in by password?"""
    names = {user.pw_name for user in people()}
    entries = (line.split(":") for line in read("/etc/shadow").splitlines())
    return any(fields[0] in names and fields[1].startswith("$") for fields in entries)


def reads_drop_ins():
    """Does sshd_config include the drop-ins before it sets or matches anything?"""
    for line in read("/etc/ssh/sshd_config").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            return words[0].lower() == "include" and "/etc/ssh/sshd_config.d/*.conf" in words[1:]
    return False


def main():
    seen = {
        "ports": sorted(public_ports()),
        "foreign_firewall": foreign_firewall(),
        "has_nft": shutil.which("nft") is not None,
        "container": bool(output("systemd-detect-virt", "--container").strip() not in ("", "none")),
        # One key is ours. Without another, who has a password uses it.
        "password_only": has_password() and authorized_keys() <= 1,
        "sshd_reads_drop_ins": reads_drop_ins(),
    }
    sys.stdout.write(json.dumps(seen) + "\n")


main()
