"""What the bucket knows and a restored control plane does not. It is told, and never taken over:
nobody has verified it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Engine, select

from managed.domain.secrets import SecretPurpose
from managed.domain.servers import ServerStatus
from managed.domain.snapshots import MANIFESTS, REPOSITORIES, account_of
from managed.ports import ObjectStore
from managed.storage.database import reading
from managed.storage.tables import sealed_secrets, servers, snapshots


@dataclass(frozen=True)
class Findings:
    """`newer_snapshots` counts, by server's name, those that are not in the catalogue;
    `unknown_accounts` are repositories of servers that are not on record; `locked_out` are servers
    whose repository was made after the copy, with a password that is lost.
    """

    newer_snapshots: dict[str, int]
    unknown_accounts: tuple[str, ...]
    locked_out: tuple[str, ...]


def findings(engine: Engine, objects: ObjectStore) -> Findings:
    """Read from the names of objects; nothing is opened."""
    with reading(engine) as connection:
        is_present = servers.c.status != ServerStatus.DELETED.value
        names = {
            account_of(row.id): row.name
            for row in connection.execute(select(servers.c.id, servers.c.name).where(is_present))
        }
        deleted = connection.scalars(select(servers.c.id).where(~is_present)).all()
        catalogue = set(connection.scalars(select(snapshots.c.id)))
        is_password = sealed_secrets.c.purpose == SecretPurpose.REPOSITORY_PASSWORD.value
        opened = {
            account_of(owner)
            for owner in connection.scalars(select(sealed_secrets.c.owner).where(is_password))
        }
    found: dict[str, set[str]] = defaultdict(set)
    for key in objects.keys(MANIFESTS):
        account, _, rest = key.removeprefix(MANIFESTS).partition("/")
        found[account].add(rest.partition("/")[0])
    gone = {account_of(server_id) for server_id in deleted}
    newer = {names[a]: len(found[a] - catalogue) for a in found if a in names}
    return Findings(
        newer_snapshots={name: count for name, count in sorted(newer.items()) if count},
        unknown_accounts=tuple(sorted(found.keys() - names.keys() - gone)),
        locked_out=tuple(
            sorted(
                name
                for account, name in names.items()
                if account not in opened and objects.exists(f"{REPOSITORIES}{account}/config")
            )
        ),
    )
