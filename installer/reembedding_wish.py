"""The model that a store is to change to, and the provider settings that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from memory_plugin.installer import secret
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError, ProviderError
from memory_plugin.installer.transfer import store


@dataclass(frozen=True)
class Wish:
    """The model to change to; what is None is taken from the store's own provider."""

    model: str
    dimensions: int
    url: str | None = None
    api_key: str | None = None
    send_dimensions: bool = False
    text_prefix: str = ""
    query_prefix: str = ""
    ca_certificate: str | None = None


def test(connection: Connection, wish: Wish) -> None:
    """Ask the provider for one word; raise BadSettingError for what breaks a rule, ProviderError for a wrong answer."""
    with _refusing(), connection.transaction():
        provider, values = _provider(connection, wish)
        query = sql.SQL("select memory_plugin._test_embedding({})").format(provider)
        (told,) = store.one(connection, query, values)
    if not isinstance(told, dict):
        raise TypeError("_test_embedding() gave no object")
    if not told["ok"]:
        raise ProviderError(
            str(told["problem"]),
            hint="correct --url, --model, --dimensions or the key (--key-file); nothing was changed",
        )


def start(connection: Connection, wish: Wish) -> None:
    """Write the provider down and make room for its vectors, in the transaction that the connection is in."""
    provider, values = _provider(connection, wish)
    connection.execute(sql.SQL("select memory_plugin._reembed_start({})").format(provider), values)


def renew(connection: Connection, wish: Wish) -> None:
    """Go on with a change: by the url, key and certificate that the wish has, and with what was refused tried again."""
    with _refusing(), connection.transaction():
        key = secret.send(connection, wish.api_key)
        query = sql.SQL("select memory_plugin._reembed_renew(%s, {}, %s, %s, %s, %s)").format(key)
        values = (wish.url, wish.send_dimensions, wish.text_prefix, wish.query_prefix, wish.ca_certificate)
        connection.execute(query, values)


def _provider(connection: Connection, wish: Wish) -> tuple[sql.Composed, dict[str, object]]:
    """Return the provider as an expression with its parameters, for this transaction."""
    call = sql.SQL(
        "memory_plugin._embedding_wish('next', %(url)s, %(model)s, %(dimensions)s, {}, "
        "p_send_dimensions => %(send)s, p_text_prefix => %(text)s, p_query_prefix => %(query)s, "
        "p_ca_certificate => %(authorities)s)"
    ).format(secret.send(connection, wish.api_key))
    values: dict[str, object] = {
        "url": wish.url,
        "model": wish.model,
        "dimensions": wish.dimensions,
        "send": wish.send_dimensions,
    }
    values |= {"text": wish.text_prefix, "query": wish.query_prefix, "authorities": wish.ca_certificate}
    return call, values


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what breaks a rule of ours into a setting that is not valid."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate != "MP001":
            raise
        raise BadSettingError(error.diag.message_primary or "") from None
