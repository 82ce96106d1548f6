#!/usr/bin/env bash
# Prepares this clone: system packages by apt, Python packages into .venv. Run again it does nothing
# unless requirements, packages.txt or this file have changed. `--force` does it all again.
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD
log=$root/var/log/setup.log
stamp=$root/.venv/.setup-stamp
packages_file=scripts/packages.txt
free_mib_needed=3072

say() { printf '%s\n' "$*"; }

fail() {
    printf '\nsetup stopped: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '%s\n' "$2" >&2
    exit 1
}

fingerprint() {
    { cat requirements*.txt "$packages_file" scripts/bootstrap.sh; printf '%s\n' "$root"; } | sha256sum
}

is_done() {
    [ "${1:-}" != --force ] && [ -x .venv/bin/python ] && [ -e "$stamp" ] &&
        [ "$(cat "$stamp")" = "$(fingerprint)" ]
}

# What a program does at the moment, as far as its output tells.
last_line() {
    tail -n 20 "$log" | grep -v -e '^WARNING' -e '^==' | tail -n 1 | sed 's/^ *//' | cut -c 1-70
}

# The command that runs in the background, which Ctrl-C does not reach, and whether it may be ended.
process=
may_be_cut_off=yes

stop_at_signal() {
    trap '' INT TERM HUP
    if [ -n "$process" ] && [ "$may_be_cut_off" = yes ]; then
        kill "$process" 2>/dev/null || true
    elif [ -n "$process" ]; then
        say "Interrupted; a package manager must not be cut off, so waiting for its end ..."
    fi
    [ -z "$process" ] || wait "$process" || true
    fail "interrupted." "Run it again; it goes on with what is missing."
}

# Runs a command with its output in the log; a line every 15 seconds tells that it lives.
quietly() {
    local what=$1 began=$SECONDS next=15 status=0
    shift
    say "- $what"
    printf '\n== %s\n' "$what" >>"$log"
    # Without the lock, which is to end with this script.
    "$@" >>"$log" 2>&1 </dev/null 9>&- &
    process=$!
    while sleep 0.2; kill -0 "$process" 2>/dev/null; do
        if ((SECONDS - began >= next)); then
            say "  $((SECONDS - began)) s: $(last_line)"
            next=$((next + 15))
        fi
    done
    wait "$process" || status=$?
    process=
    return "$status"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

require_root() {
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null || fail "installing packages needs root, and there is no sudo." \
        "Run it as root, or have these installed: $*"
    # Not "sudo -v", which asks a password also of those who need none to run a command.
    sudo true || fail "sudo did not let us become root." "Run it as root, or have these installed: $*"
}

require_space() {
    local free
    free=$(df --output=avail -m . | tail -n 1)
    [ "$free" -ge "$free_mib_needed" ] ||
        fail "$root has $free MiB free, and $free_mib_needed MiB are needed." "Free some space."
}

require_python() {
    command -v python3 >/dev/null || fail "python3 is not installed." "Install Python 3.11 or newer."
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "python3 is $(python3 -V | cut -d ' ' -f 2); 3.11 or newer is needed." \
            "Debian 12, Debian 13 and Ubuntu 24.04 have it."
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

is_known() {
    [ -n "$(apt-cache policy "$1" 2>/dev/null | grep 'Candidate:' | grep -v '(none)')" ]
}

# The packages that are wanted and not installed, one a line. With "new", alternatives are resolved
# by what apt knows; without, a line counts as installed when one of its alternatives is.
missing_packages() {
    local line optional name found names
    while read -r line; do
        line=${line%%#*}
        optional=no
        case $line in *\?*) optional=yes line=${line%%\?*} ;; esac
        read -r -a names <<<"${line//|/ }"
        [ ${#names[@]} -gt 0 ] || continue
        found=
        for name in "${names[@]}"; do
            if is_installed "$name"; then found=installed; fi
        done
        [ "$found" = installed ] && continue
        for name in "${names[@]}"; do
            if [ -z "$found" ] && is_known "$name"; then found=$name; fi
        done
        [ -z "$found" ] && [ "$optional" = yes ] && continue
        printf '%s\n' "${found:-${names[0]}}"
    done <"$packages_file"
}

# Services that came with these packages are not ours to have running: we start our own. One of the
# machine's owner that ran before is left alone, because its package was there before.
stop_new_services() {
    local package unit
    for package in "$@"; do
        case $package in
        apt-cacher-ng | redis-server | postgresql) unit=$package ;;
        openssh-server) unit=ssh ;;
        libvirt-daemon) unit=libvirtd ;;
        *) continue ;;
        esac
        if [ -d /run/systemd/system ]; then
            as_root systemctl disable --now "$unit.service" >>"$log" 2>&1 || true
            as_root systemctl disable --now "$unit.socket" >>"$log" 2>&1 || true
        elif [ -x "/etc/init.d/$unit" ]; then
            as_root service "$unit" stop >>"$log" 2>&1 || true
            as_root update-rc.d "$unit" disable >>"$log" 2>&1 || true
        fi
    done
}

install_packages() {
    local missing
    command -v apt-get >/dev/null || fail "this is no Debian or Ubuntu: there is no apt-get." \
        "Install what scripts/packages.txt names in your own way, then run this with SKIP_APT=1."
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} = 0 ]; then
        say "- system packages: all there"
        return
    fi
    require_root "${missing[@]}"
    may_be_cut_off=no
    quietly "asking apt for its package lists" as_root apt-get -q update ||
        fail "apt could not fetch its package lists." "See $log; is the network or the mirror down?"
    mapfile -t missing < <(missing_packages)
    quietly "installing ${#missing[@]} packages: ${missing[*]}" \
        as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends \
        "${missing[@]}" ||
        fail "apt could not install the packages." "See the end of $log."
    may_be_cut_off=yes
    stop_new_services "${missing[@]}"
}

# Where no package has just promtool, it comes with Prometheus, which starts wherever it is installed:
# so into the clone's own environment.
unpack_promtool() {
    if command -v promtool >/dev/null || [ -x .venv/bin/promtool ]; then return; fi
    quietly "unpacking promtool, which tests the alert rules" fetch_promtool ||
        say "  not to be had (see ${log#"$root"/}); a test will miss it"
}

fetch_promtool() {
    local folder=.venv/promtool
    rm -rf "$folder" && mkdir "$folder" && (
        cd "$folder" &&
            { apt-get -q download prometheus ||
                { as_root apt-get -q update && apt-get -q download prometheus; }; } &&
            dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/promtool
    ) && mv "$folder/usr/bin/promtool" .venv/bin/ && rm -r "$folder"
}

pip_install() {
    exec .venv/bin/python -m pip install --no-input --disable-pip-version-check \
        --progress-bar off --require-hashes "$@"
}

fail_pip() {
    fail "the Python packages could not be installed." \
        "See the end of $log; does pip reach your package registry?"
}

make_environment() {
    if ! .venv/bin/python -c '' 2>/dev/null; then
        quietly "making the Python environment .venv" python3 -m venv --clear .venv ||
            fail "python3 -m venv did not work." "See the end of $log."
    fi
    .venv/bin/python -m pip --version >>"$log" 2>&1 || .venv/bin/python -m ensurepip >>"$log" 2>&1
    # libvirt's binding is compiled: by what is locked too, not by whatever is newest that day.
    quietly "installing what Python packages are built with" \
        pip_install --requirement requirements-build.txt || fail_pip
    # Without --no-compile pip compiles the 50,000 files of the package ansible, of which few are used.
    quietly "installing the locked Python packages (a minute or two the first time)" \
        pip_install --no-compile --no-build-isolation --requirement requirements.txt || fail_pip
}

# The program `managed`, and this clone on Python's path: its files are used where they are.
link_program() {
    local site
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$root" >"$site/managed-clone.pth"
    printf '#!%s\nfrom managed.cli import main\n\nmain()\n' "$root/.venv/bin/python" \
        >.venv/bin/managed
    chmod +x .venv/bin/managed
    .venv/bin/python -c 'import libvirt, sqlalchemy, celery, managed.domain.jobs' >>"$log" 2>&1 ||
        fail "the Python packages do not import." "See the end of $log."
}

is_done "$@" && exit 0
mkdir -p "$(dirname "$log")"
exec 9>"$root/var/.setup-lock"
flock -n 9 || { say "Another setup is at work here; waiting for its end ..." && flock 9; }
is_done "$@" && exit 0
trap stop_at_signal INT TERM HUP
: >"$log"
say "Setting up (what programs say goes to ${log#"$root"/}):"
require_space
require_python
[ "${SKIP_APT:-}" = 1 ] || install_packages
make_environment
[ "${SKIP_APT:-}" = 1 ] || unpack_promtool
link_program
fingerprint >"$stamp"
say "Set up in $SECONDS s."
