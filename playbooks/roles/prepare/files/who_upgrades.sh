#!/bin/sh
# Prints who installs updates on this server: taken-over (we switched its own upgrades off),
# absent, disabled or enabled (unattended-upgrades).
set -eu
if test -e /etc/apt/apt.conf.d/99-managed-upgrades; then
    echo taken-over
elif ! test -x /usr/bin/unattended-upgrade; then
    echo absent
else
    eval "$(apt-config shell EVERY APT::Periodic::Unattended-Upgrade ENABLED APT::Periodic::Enable)"
    if test "${EVERY:-0}" = 0 || test "${ENABLED:-1}" = 0; then
        echo disabled
    else
        echo enabled
    fi
fi
