"""Memory for AI agents that lives inside the tenant's own Postgres."""

__version__ = "1.0.0"
