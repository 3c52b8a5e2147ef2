"""A thin WSGI sidecar: path -> one SQL call -> status."""
