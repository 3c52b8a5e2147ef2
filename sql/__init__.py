"""SQL sources: migrations run once, functions re-applied on every install."""
