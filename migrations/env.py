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
        # Alembic makes its version table before the first revision runs. Not IF NOT EXISTS: that asks for the right to create schemas
        # even where a DBA has made ours.
        context.execute(f"DO $$ BEGIN IF to_regnamespace('{SCHEMA}') IS NULL THEN CREATE SCHEMA {SCHEMA}; END IF; END $$")
    context.run_migrations()
