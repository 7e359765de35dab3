"""Alembic's environment. It is only entered through `syncd.store.migrate`, which hands over the connection and the lock."""

from alembic import context

from syncd.store.migrate import SCHEMA, VERSION_TABLE

connection = context.config.attributes.get("connection")
context.configure(
    connection=connection,
    dialect_name=None if connection else "postgresql",
    version_table=VERSION_TABLE,
    version_table_schema=SCHEMA,
)
with context.begin_transaction():
    if connection is None:
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")  # Alembic makes its version table before the first revision runs
    context.run_migrations()
