"""Prints as JSON what hardening must know so that it locks nobody out. Changes nothing.

Usage: look_at_server.py OUR_PUBLIC_KEY
"""

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
RULES = ("/etc/managed/confirmed/firewall.nft", "/etc/managed/trial/firewall.nft")
OUR_SETTINGS = {"/etc/ssh/sshd_config.d/*.conf", "/etc/ssh/sshd_config.d/00-managed.conf"}
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


def need_passwords(our_key):
    """Names of those who can log in by their password today and have no key of their own."""
    hashes = dict(line.split(":")[:2] for line in read("/etc/shadow").splitlines())
    return sorted(
        person.pw_name
        for person in people()
        if is_password(hashes.get(person.pw_name, "")) and password_is_only_way(person, our_key)
    )


def password_is_only_way(person, our_key):
    settings = effective_settings(
        output("/usr/sbin/sshd", "-T", "-C", f"user={person.pw_name},host=localhost,addr=127.0.0.1")
    )
    if not passwords_accepted(settings, person.pw_uid):
        return False
    files = settings.get("authorizedkeysfile", ".ssh/authorized_keys").split()
    texts = (read(key_file(name, person.pw_name, person.pw_dir)) for name in files)
    return not any(login_keys(text) - login_keys(our_key) for text in texts)


def people():
    shells = ("nologin", "false", "sync")
    return [user for user in pwd.getpwall() if not user.pw_shell.endswith(shells)]


def is_password(field):
    """Is this field of /etc/shadow the hash of a password (crypt's $id$…, or DES), and unlocked?"""
    return field.startswith("$") or re.fullmatch(r"[./0-9A-Za-z]{13}", field) is not None


def effective_settings(printed):
    return dict(line.partition(" ")[::2] for line in printed.splitlines())


def passwords_accepted(settings, uid):
    """Does an sshd with these settings let this user in by a password? Unknown counts as yes."""
    if uid == 0 and settings.get("permitrootlogin", "yes") != "yes":
        return False
    ways = ("passwordauthentication", "kbdinteractiveauthentication")
    return any(settings.get(way, "yes") == "yes" for way in ways)


def key_file(name, user, home):
    """A path of AuthorizedKeysFile with its tokens replaced."""
    for token, value in (("%u", user), ("%h", home), ("%%", "%")):
        name = name.replace(token, value)
    return os.path.join(home, name)


def login_keys(text):
    """The keys (their base64) that open a shell; those bound to a command and those that only
    sign certificates do not.
    """
    keys = set()
    for line in text.splitlines():
        found = re.match(r"\s*(?:([^#\s].*?)\s+)?(?:ssh|ecdsa|sk)-\S+\s+(AAAA\S+)", line)
        if found and not re.search(r"\b(command=|cert-authority)", found[1] or "", re.IGNORECASE):
            keys.add(found[2])
    return keys


def reads_our_settings():
    """Does sshd_config include our drop-in before it sets or matches anything?"""
    for line in read("/etc/ssh/sshd_config").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            return words[0].lower() == "include" and not OUR_SETTINGS.isdisjoint(words[1:])
    return False


def system_name():
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', read("/etc/os-release"), re.MULTILINE)
    return found[1] if found else "this system"


def main(our_key):
    seen = {
        "system": system_name(),
        "of_debians_family": os.path.exists("/etc/debian_version"),
        "ports": sorted(public_ports()),
        "has_nft": shutil.which("nft") is not None,
        "container": bool(output("systemd-detect-virt", "--container").strip() not in ("", "none")),
        "need_passwords": need_passwords(our_key),
        "sshd_reads_our_settings": reads_our_settings(),
    }
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
