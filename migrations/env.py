"""Alembic's entry: runs the versions on the connection it is given, as the owner role."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run migrations with: allotment migrate")

context.configure(
    connection=connection,
    transactional_ddl=True,
    transaction_per_migration=True,
    version_table_schema="allotment",
)
with context.begin_transaction():
    context.run_migrations()
