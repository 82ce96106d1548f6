"""Alembic's entry: migrations run on the connection that `managed.storage.database` opened."""

from alembic import context

from managed.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
