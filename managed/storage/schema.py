"""The schema's revisions. Alembic is imported when it is used: it takes long to load, and most
processes never need it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to the revision, inside the caller's transaction."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def present_revision(connection: Connection) -> str | None:
    """The revision that the database has; None when nothing was ever made in it."""
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def is_ahead(connection: Connection) -> bool:
    """Has a newer version brought the database further than this one knows?"""
    present = present_revision(connection)
    return present is not None and present not in known_revisions()


def known_revisions() -> tuple[str, ...]:
    """Those that this version can bring forward, newest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return tuple(script.revision for script in scripts)


def is_behind(connection: Connection) -> bool:
    """Does the database lack a migration of this version? One that is further on is fine: in an
    upgrade the schema goes ahead of the processes.
    """
    present = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()
    return not set(present).isdisjoint(_superseded())


@cache
def _superseded() -> frozenset[str]:
    """The migrations of this version but the last."""
    return frozenset(known_revisions()[1:])


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
