"""Name the suite's plugins, one per concern."""

pytest_plugins = (
    "fixtures.servers",
    "fixtures.databases",
    "fixtures.sidecars",
    "fixtures.backfilling",
    "fixtures.contract",
    "fixtures.pgbouncer",
    "fixtures.clock",
    "fixtures.reliability",
    "fixtures.embedding_service",
    "fixtures.as_root",
    "fixtures.embedded_folder",
)
