"""Databases of a restored server: real PostgreSQL and MariaDB on a cell, their files torn as a
backup's fuzzy copy can be, loaded from their dumps by the real scripts.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest

from managed.domain.runs import RunReport, RunRequest, RunState
from managed.drivers.runs import SshRuns
from managed.drivers.ssh.shell import SshShell
from managed.lab.cells import Cell
from managed.server_scripts import script_source
from tests.support.cells import StartCell
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cell, pytest.mark.timeout(600)]

DUMPS = "/var/backups/managed/databases"
CLUSTER = "/var/lib/postgresql/15/main"
MARIADB = "/var/lib/mysql"
# Both are reached through their sockets alone: a cell shares the ports of its host. dpkg need not
# wait for the disk.
INSTALL = """
mkdir -p /etc/postgresql-common /etc/mysql/mariadb.conf.d
echo "listen_addresses = ''" >/etc/postgresql-common/createcluster.conf
printf '[mariadbd]\\nskip-networking\\n' >/etc/mysql/mariadb.conf.d/99-cell.cnf
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/cell
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq --error-on=any
apt-get install -qqy --no-install-recommends postgresql-15 mariadb-server
"""

FILL_POSTGRESQL = """
CREATE ROLE shop LOGIN PASSWORD 'secret of shop';
CREATE ROLE "Odd role";
CREATE DATABASE shop OWNER shop;
CREATE DATABASE german TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C';
ALTER DATABASE postgres SET work_mem = '9MB';
ALTER SYSTEM SET deadlock_timeout = '7s';
\\connect german
CREATE TABLE words (word text);
INSERT INTO words VALUES ('sch\u00f6n');
\\connect shop
CREATE TABLE orders (id int PRIMARY KEY, item text);
INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 5000) n;
GRANT SELECT ON orders TO "Odd role";
"""

FILL_MARIADB = """
CREATE DATABASE shop;
CREATE DATABASE blog;
CREATE TABLE blog.posts (id int PRIMARY KEY, content text) ENGINE=MyISAM;
INSERT INTO blog.posts VALUES (1, 'hell\u00f6');
USE shop
CREATE TABLE orders (id int PRIMARY KEY, item text);
INSERT INTO orders SELECT seq, md5(seq) FROM seq_1_to_5000;
CREATE FUNCTION doubled(n int) RETURNS int DETERMINISTIC RETURN n * 2;
CREATE EVENT daily ON SCHEDULE EVERY 1 DAY DO DELETE FROM orders;
CREATE VIEW first_order AS SELECT * FROM orders WHERE id = 1;
CREATE USER shop@localhost IDENTIFIED BY 'secret of shop';
GRANT SELECT ON shop.orders TO shop@localhost;
"""

ASK_POSTGRESQL = """
SELECT current_setting('work_mem'), current_setting('deadlock_timeout');
SELECT rolname, rolcanlogin, rolpassword ~ '^SCRAM' FROM pg_authid
    WHERE rolname !~ '^pg_' ORDER BY rolname;
SELECT datname, pg_encoding_to_char(encoding), datcollate, datallowconn, datistemplate,
    datdba::regrole FROM pg_database ORDER BY datname;
\\connect german
SELECT * FROM words;
\\connect shop
SELECT count(*), md5(string_agg(item, ',' ORDER BY id)) FROM orders;
SELECT tableowner, has_table_privilege('Odd role', 'orders', 'SELECT'),
    has_table_privilege('shop', 'orders', 'SELECT') FROM pg_tables WHERE tablename = 'orders';
"""

ASK_MARIADB = """
SHOW DATABASES;
SELECT count(*), md5(group_concat(item ORDER BY id)) FROM shop.orders;
SELECT * FROM shop.first_order;
SELECT * FROM blog.posts;
SELECT shop.doubled(21);
SHOW EVENTS FROM shop;
SHOW GRANTS FOR shop@localhost;
SHOW GRANTS FOR root@localhost;
"""

APPLICATION = """
cat >/etc/systemd/system/shop.service <<END
[Unit]
Requires=mariadb.service
After=mariadb.service
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
END
systemctl enable --now shop
"""

AS_SHOP = "mariadb -ushop '-psecret of shop' -NBe 'SELECT count(*) FROM shop.orders'"


@dataclass
class Server:
    """The cell, and what its databases say when they are well."""

    cell: Cell
    numbers: itertools.count[int]

    def __post_init__(self) -> None:
        self.shell = SshShell()
        self.runs = SshRuns(self.shell)

    def sh(self, command: str, given: str = "") -> str:
        ended = self.shell.run(
            self.cell.endpoint, ["sh", "-euc", command], stdin=given.encode(), timeout=300
        )
        assert ended.exit_status == 0, f"{command!r}: {ended.stderr or ended.stdout}"
        return ended.stdout

    def psql(self, statements: str) -> str:
        return self.sh("cd /; runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1", statements)

    def mariadb(self, statements: str) -> str:
        return self.sh("mariadb -NB", statements)

    def contents(self) -> tuple[str, str, str]:
        return self.psql(ASK_POSTGRESQL), self.mariadb(ASK_MARIADB), self.sh(AS_SHOP)

    def start(self, script: str, *arguments: str) -> str:
        run_id = f"databases-{next(self.numbers)}.step.1"
        self.runs.start(self.cell.endpoint, RunRequest(run_id, script, arguments=arguments))
        return run_id

    def look(self, run_id: str) -> RunReport:
        return self.runs.look(self.cell.endpoint, run_id, 0)

    def ended(self, run_id: str) -> RunReport:
        wait_until(
            lambda: self.look(run_id).state is not RunState.RUNNING,
            timeout=120,
            what=f"{run_id} has ended",
        )
        return self.look(run_id)

    def dump(self) -> None:
        script = script_source("_databases") + "\ndump_databases()\n"
        report = self.ended(self.start(script))
        assert report.exit_status == 0, report.log

    def start_load(self, load: str) -> str:
        return self.start(script_source("load_databases"), json.dumps({"load": load}))

    def loaded(self, load: str, exit_status: int = 0) -> dict[str, Any]:
        """The result of loading all dumps."""
        run_id = self.start_load(load)
        report = self.ended(run_id)
        assert report.exit_status == exit_status, report.log
        return self.result(run_id)

    def result(self, run_id: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(
            self.sh(f"cat /var/lib/managed/runs/{run_id}/result.json")
        )
        return document

    def leftovers(self) -> list[str]:
        return self.sh(
            f"ls -d {CLUSTER}?* {MARIADB}?* 2>/dev/null || true;"
            f"ls -A {CLUSTER} {MARIADB} | grep managed || true"
        ).split()

    def is_running(self) -> bool:
        """Both servers, and the application that needs one of them."""
        states = self.sh("systemctl is-active mariadb postgresql@15-main shop || true")
        return states == "active\nactive\nactive\n"

    def change(self, name: str, expression: str) -> None:
        """Edit a dump with sed."""
        self.sh(f"sed -i '{expression}' {DUMPS}/{name}")


@pytest.fixture(scope="module")
def filled(start_test_cell: StartCell) -> Server:
    server = Server(start_test_cell("databases"), itertools.count(1))
    server.sh(INSTALL)
    server.psql(FILL_POSTGRESQL)
    server.mariadb(FILL_MARIADB)
    server.sh("systemctl restart postgresql@15-main")
    server.sh(APPLICATION)
    server.dump()
    server.sh(f"cp -a {DUMPS} /root/dumps")
    return server


@pytest.fixture
def server(filled: Server) -> Server:
    """The dumps as they were made, whatever a test has done to them."""
    filled.sh(f"rm -rf {DUMPS}; cp -a /root/dumps {DUMPS}")
    return filled


@pytest.fixture(scope="module")
def contents(filled: Server) -> tuple[str, str, str]:
    return filled.contents()


Contents = tuple[str, str, str]


def tear_tables(server: Server) -> None:
    """Pages in the middle of tables are not those of their time, as in a fuzzy copy."""
    table = server.psql("\\connect shop\nSELECT pg_relation_filepath('orders')").strip()
    server.sh(
        "systemctl stop postgresql@15-main mariadb;"
        f"dd if=/dev/urandom of={CLUSTER}/{table} bs=8192 seek=3 count=4 conv=notrunc;"
        f"dd if=/dev/urandom of={MARIADB}/shop/orders.ibd bs=16384 seek=3 count=4 conv=notrunc;"
        "systemctl start postgresql@15-main mariadb"
    )


def tear_system_files(server: Server) -> None:
    """Neither of the servers starts any more."""
    server.sh(
        "systemctl stop postgresql@15-main mariadb;"
        f"dd if=/dev/urandom of={CLUSTER}/global/pg_control bs=512 count=1 conv=notrunc;"
        f"dd if=/dev/urandom of={MARIADB}/ibdata1 bs=16384 count=8 conv=notrunc;"
        "systemctl start postgresql@15-main || true; systemctl start mariadb || true"
    )
    assert server.sh("systemctl is-failed postgresql@15-main mariadb") == "failed\nfailed\n"


def test_torn_files_become_what_the_dumps_say_once(server: Server, contents: Contents) -> None:
    tear_tables(server)
    with pytest.raises(AssertionError):
        server.contents()

    result = server.loaded("torn")

    assert server.contents() == contents
    assert server.leftovers() == []
    assert server.is_running()
    assert [(d["kind"], d["name"], d["databases"]) for d in result["databases"]] == [
        ("mariadb", "all", 2),
        ("postgresql", "15/main", 3),
    ]
    assert all(d["bytes"] > 0 and d["seconds"] > 0 for d in result["databases"])
    assert (result["left"], result["warnings"]) == ([], [])
    modes = server.sh(f"stat -c '%a %U' {CLUSTER} {MARIADB}")
    assert modes == "700 postgres\n755 mysql\n"

    server.mariadb("INSERT INTO blog.posts VALUES (2, 'written since')")
    assert server.loaded("torn") == result
    assert server.mariadb("SELECT count(*) FROM blog.posts") == "2\n"


def test_servers_that_do_not_start_are_loaded_and_a_killed_load_is_done_by_the_next(
    server: Server, contents: Contents
) -> None:
    tear_system_files(server)
    server.change("postgresql-15-main.sql", "0,/^.connect shop/s//SELECT pg_sleep(900);\\n&/")
    run_id = server.start_load("killed")
    sleeps = "pgrep -f 'SELECT$' -u postgres || true"
    wait_until(lambda: server.sh(sleeps), timeout=60, what="the load is in its middle")
    server.sh(f"systemctl kill --kill-whom=all --signal=KILL managed-run-{run_id}.service")
    assert server.ended(run_id).state is RunState.UNKNOWN
    assert f"{CLUSTER}.before-load" in server.leftovers()
    server.sh(f"rm -rf {DUMPS}; cp -a /root/dumps {DUMPS}")

    server.loaded("killed")

    assert server.contents() == contents
    assert server.leftovers() == []
    assert server.is_running()


def test_damaged_dumps_leave_the_old_files_in_use(server: Server) -> None:
    server.psql("CREATE TABLE since (n int)")
    server.mariadb("CREATE TABLE shop.since (n int)")
    server.change("postgresql-15-main.sql", "s/^CREATE TABLE public.orders/CREATE TABEL x/")
    server.change("mariadb.sql", "s/^CREATE TABLE `orders`/CREATE TABEL x/")

    result = server.loaded("damaged", exit_status=1)

    detail = result["error"]["detail"]
    for label in ("mariadb all", "postgresql 15/main"):
        assert f"the dump of {label} was not loaded: " in detail
    assert server.is_running()
    assert detail.count("its files of before are in place and it runs on them") == 2
    assert "TABEL" in detail
    assert server.psql("DROP TABLE since") == server.mariadb("DROP TABLE shop.since") == ""
    assert server.leftovers() == []
    assert result["databases"] == []


def test_a_load_that_is_told_to_end_goes_back(server: Server) -> None:
    server.mariadb("CREATE TABLE shop.since (n int)")
    server.change("mariadb.sql", "0,/^CREATE DATABASE.*shop/s//SELECT SLEEP(900);\\n&/")
    run_id = server.start_load("stopped")
    new_files = f"test -e {MARIADB}.before-load && ls {MARIADB}/blog/posts.MYD || true"
    wait_until(lambda: server.sh(new_files), timeout=60, what="the load is in its middle")
    server.runs.stop(server.cell.endpoint, run_id)

    assert server.look(run_id).exit_status not in (None, 0)
    assert "told to end" in server.result(run_id)["error"]["detail"]
    assert server.is_running()
    assert server.mariadb("DROP TABLE shop.since") == ""
    assert server.leftovers() == []


def test_what_can_not_be_loaded_is_said_and_nothing_is_touched(server: Server) -> None:
    started = server.sh("systemctl show -P ActiveEnterTimestamp mariadb postgresql@15-main")
    server.sh(
        f"cd {DUMPS}; truncate -s -30 mariadb.sql;"
        "cp -a postgresql-15-main.sql postgresql-15-gone.sql;"
        "sed s,15/main,15/gone, postgresql-15-main.sql.json >postgresql-15-gone.sql.json;"
        "cp -a postgresql-15-main.sql postgresql-9-old.sql;"
        "sed s,15/main,9/old, postgresql-15-main.sql.json >postgresql-9-old.sql.json;"
        "mv postgresql-15-main.sql.json /root/"
    )

    error = server.loaded("missing", exit_status=1)["error"]

    assert error["code"] == "evidence-missing"
    for why in (
        "the dump of mariadb all was not loaded: the dump is not complete",
        "the dump of postgresql 15/gone was not loaded: pg_lsclusters does not know this cluster",
        "the dump of postgresql 9/old was not loaded: PostgreSQL 9 is not installed",
        f"{DUMPS}/postgresql-15-main.sql can't be loaded: the record beside it can't be used",
    ):
        assert why in error["detail"]
    assert server.sh("systemctl show -P ActiveEnterTimestamp mariadb postgresql@15-main") == started


def test_a_cluster_with_a_tablespace_elsewhere_is_left_with_a_warning(server: Server) -> None:
    server.sh("install -d -o postgres /srv/fast")
    server.psql("CREATE TABLESPACE fast LOCATION '/srv/fast'; CREATE TABLE since (n int)")
    server.sh("systemctl stop mariadb")
    server.dump()

    result = server.loaded("tablespace")

    assert result["databases"] == []
    assert [(left["kind"], left["name"]) for left in result["left"]] == [("postgresql", "15/main")]
    assert "/srv/fast" in result["warnings"][0]
    assert server.sh(f"ls {DUMPS}").split() == [
        "postgresql-15-main.sql",
        "postgresql-15-main.sql.json",
    ]
    server.psql("DROP TABLE since; DROP TABLESPACE fast")
    server.sh("systemctl start mariadb")


def test_without_dumps_there_is_nothing_to_do(server: Server) -> None:
    server.sh(f"rm -r {DUMPS}")

    result = server.loaded("nothing")

    assert result == {"ok": True, "databases": [], "left": [], "warnings": []}
