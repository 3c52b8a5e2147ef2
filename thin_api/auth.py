"""The optional bearer token: with one set, a request without it is 401, whatever else is wrong with it.

/v1/health stays open either way: the platform's health gate and load balancers ask it, and it reveals no more than a
version and what the store can do.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any

from memory_plugin.thin_api.errors import UNAUTHORIZED, RefusedError

# What may stand in a header and cannot be guessed by trying.
RULE = re.compile(r"[\x21-\x7e]{16,512}")
CHALLENGE = 'Bearer realm="memory-plugin"'


class Gate:
    """Lets requests through that carry the token; all of them where there is none ("")."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raise a RefusedError of 401 unless the request may pass."""
        if not self._token:
            return
        given: str = environ.get("HTTP_AUTHORIZATION", "")
        scheme, _, credentials = given.partition(" ")
        # In a time that says nothing of how much of it was right. The text of a header is latin-1, the token is ASCII.
        right = hmac.compare_digest(credentials.strip(" ").encode("latin-1", "replace"), self._token)
        if not right or scheme.lower() != "bearer":
            raise RefusedError(401, UNAUTHORIZED, "a bearer token is required: Authorization: Bearer TOKEN")
