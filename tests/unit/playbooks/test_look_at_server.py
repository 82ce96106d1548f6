"""Who would be locked out without passwords."""

from __future__ import annotations

import pytest

from tests.unit.playbooks.scripts import role_script

look = role_script("harden", "look_at_server")


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("ssh-ed25519 AAAAours managed", {"AAAAours"}),
        ('  from="10.0.0.1,::1",no-pty ecdsa-sha2-nistp256 AAAAhers', {"AAAAhers"}),
        ("sk-ssh-ed25519@openssh.com AAAAtoken kim", {"AAAAtoken"}),
        ('command="rsync --server" ssh-rsa AAAAbackup', set()),
        ("cert-authority ssh-ed25519 AAAAca", set()),
        ("# ssh-ed25519 AAAAold", set()),
        ("", set()),
    ],
)
def test_only_keys_that_open_a_shell_count(line: str, keys: set[str]) -> None:
    assert look.login_keys(f"\n{line}\n") == keys


@pytest.mark.parametrize(
    ("field", "usable"),
    [("$y$j9T$salt$hash", True), ("rl0uE1Xk2fGhQ", True), ("!$y$j9T$s$h", False), ("*", False),
     ("", False), ("x", False)],
)  # fmt: skip
def test_a_locked_password_is_none(field: str, usable: bool) -> None:
    assert look.is_password(field) is usable


@pytest.mark.parametrize(
    ("settings", "uid", "accepted"),
    [
        ({"passwordauthentication": "yes"}, 1000, True),
        ({"passwordauthentication": "no", "kbdinteractiveauthentication": "yes"}, 1000, True),
        ({"passwordauthentication": "no", "kbdinteractiveauthentication": "no"}, 1000, False),
        ({"passwordauthentication": "yes", "permitrootlogin": "without-password"}, 0, False),
        ({"passwordauthentication": "yes", "permitrootlogin": "yes"}, 0, True),
        ({}, 0, True),
    ],
)
def test_who_may_not_use_a_password_loses_nothing(
    settings: dict[str, str], uid: int, accepted: bool
) -> None:
    assert look.passwords_accepted(settings, uid) is accepted


def test_the_place_of_keys_may_hold_tokens() -> None:
    assert look.key_file(".ssh/authorized_keys", "kim", "/home/kim") == (
        "/home/kim/.ssh/authorized_keys"
    )
    assert look.key_file("/etc/keys/%u", "kim", "/home/kim") == "/etc/keys/kim"
