"""Files that backups tend to lose, and what they are, as Python programs for the server."""

from __future__ import annotations

DIRECTORY = "/srv/odd"
SWAP_FILE = "/swapfile"

MAKE = r"""
import os, subprocess
os.makedirs("/srv/odd/sub")
os.chdir("/srv/odd")
def write(name, content):
    with open(name, "wb") as file:
        file.write(content)
write("a", b"linked\n")
os.link("a", "b")
os.link("a", "sub/z")
os.symlink("a", "link")
os.symlink("/nowhere/at all", "dangling")
os.mkfifo("pipe", 0o640)
os.mknod("null", 0o600 | 0o020000, os.makedev(1, 3))
write("setuid", b"#!/bin/sh\n")
os.chown("setuid", 1234, 2345)
os.chmod("setuid", 0o6755)
write(b"new\nline", b"x")
write(b"latin-\xe9", b"y")
write(b"latin-\xe8", b"z")
write("star*[q]?\\", b"q")
write("\u00fcml\ufffdut", b"u")
with open("sparse", "wb") as file:
    file.truncate(64 << 20)
    file.seek(32 << 20)
    file.write(b"island")
os.setxattr("a", "user.bytes", b"\x00\xff\n")
write("capable", b"cap")
os.setxattr("capable", "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
write("acl", b"acl")
acl = "0200000001000600ffffffff02000600d204000004000400ffffffff10000600ffffffff20000400ffffffff"
os.setxattr("acl", "system.posix_acl_access", bytes.fromhex(acl))
os.chmod("sub", 0o2775)
os.utime("setuid", ns=(1, 981173106123456789))
descriptor = os.open("/swapfile", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
os.posix_fallocate(descriptor, 0, 64 << 20)
os.close(descriptor)
with open("/etc/fstab", "a") as file:
    file.write("/swapfile none swap sw 0 0\n")
for command in ("mkswap --label spare /swapfile", "systemctl daemon-reload", "swapon --all"):
    subprocess.run(command.split(), check=True, capture_output=True)
os.sync()
"""

DESCRIBE = r"""
import hashlib, json, os, stat
found = []
for directory, names, files in sorted(os.walk(b"/srv/odd")):
    for name in sorted(names + files):
        path = os.path.join(directory, name)
        s = os.lstat(path)
        content = b""
        if stat.S_ISREG(s.st_mode):
            content = open(path, "rb").read()
        elif stat.S_ISLNK(s.st_mode):
            content = os.readlink(path)
        attributes = sorted(os.listxattr(path, follow_symlinks=False))
        values = [os.getxattr(path, a, follow_symlinks=False).hex() for a in attributes]
        found.append([path.hex(), s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns,
            s.st_rdev, hashlib.sha256(content).hexdigest(), attributes, values])
linked = len({os.stat("/srv/odd/" + n).st_ino for n in ("a", "b", "sub/z")})
sparse = os.stat("/srv/odd/sparse").st_blocks * 512 < 1 << 20
swaps = [line.split()[:3] for line in open("/proc/swaps")][1:]
identity = open("/swapfile", "rb").read(4096)[1024:1100].hex()
mode = os.stat("/swapfile").st_mode
print(json.dumps({"files": found, "swaps": [swaps, identity, mode],
    "inodes_of_linked": linked, "is_sparse": sparse}))
"""
