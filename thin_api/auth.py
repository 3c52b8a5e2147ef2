"""Who may ask: with a token set, whoever carries it (else 401); without one anybody but another site's page (else 403).

A browser lets every page that it shows send requests to loopback, and whoever owns a page's name may make it mean
loopback (then even the answers can be read). Both show by an Origin, which a browser adds to all but GET, without a
Sec-Fetch-Site that calls it the same one: browsers send that to loopback and over HTTPS, and no page can forge it.

/v1/health stays open either way: the platform's health gate and load balancers ask it, and it reveals no more than a
version and what the store can do.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any

from memory_plugin.thin_api.errors import FORBIDDEN, UNAUTHORIZED, RefusedError

# What may stand in a header and cannot be guessed by trying.
RULE = re.compile(r"[\x21-\x7e]{16,512}")
CHALLENGE = 'Bearer realm="memory-plugin"'


class Gate:
    """Lets requests through that carry the token; where there is none (""), those of no other site's page."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raise a RefusedError of 401 or 403 unless the request may pass."""
        if not self._token:
            if "HTTP_ORIGIN" in environ and environ.get("HTTP_SEC_FETCH_SITE") != "same-origin":
                raise RefusedError(403, FORBIDDEN, "a web page of another origin may not ask without a token")
            return
        given: str = environ.get("HTTP_AUTHORIZATION", "")
        scheme, _, credentials = given.partition(" ")
        # In a time that says nothing of how much of it was right. The text of a header is latin-1, the token is ASCII.
        right = hmac.compare_digest(credentials.strip(" ").encode("latin-1", "replace"), self._token)
        if not right or scheme.lower() != "bearer":
            raise RefusedError(401, UNAUTHORIZED, "a bearer token is required: Authorization: Bearer TOKEN")
