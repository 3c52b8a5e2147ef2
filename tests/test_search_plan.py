"""What docs/search.md says of seeing the plan of a search in psql."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.server import Server
from semantic_store import LARGE, SIZES, Store, filled_store

DOC = Path(__file__).parents[1] / "docs" / "search.md"


@pytest.fixture(scope="module")
def recipe() -> str:
    """Return the statements that the page names."""
    found = re.search(r"To see the real plan[^`]*```sql\n(load 'auto_explain'.*?)```", DOC.read_text(), re.DOTALL)
    assert found
    return " ".join(found[1].split())


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Store]:
    """Return a store of one large namespace."""
    with filled_store(server, 32, {LARGE: SIZES[LARGE]}) as store:
        yield store


def plans(store: Store, recipe: str, **asked: Any) -> str:
    """Return what a session is told about the plans of a search, after the statements of the page."""
    told: list[str] = []
    parts = psycopg.conninfo.conninfo_to_dict(store.connection.info.dsn)
    with psycopg.connect(**parts, password=store.connection.info.password or None, autocommit=True) as conn:
        conn.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        conn.execute(recipe.encode())
        names = ", ".join(f"{name} => %({name})s" for name in asked)
        conn.execute(f"select count(*) from memory_plugin.search(array['{LARGE}'], {names})".encode(), asked)
    return "\n".join(told)


def test_the_page_shows_the_plan_with_its_rows_and_times(server: Server, filled: Store, recipe: str) -> None:
    if not server.has_plpython:
        # The server of `make serve` comes without it, as the page says.
        with pytest.raises(psycopg.errors.UndefinedFile):
            filled.connection.execute(recipe.encode())
        return
    near = plans(filled, recipe, embedding=filled.embedding(LARGE, 3))
    assert re.search(r"Index Scan using memory_vectors_embedding on memory_vectors .*actual time", near), near
    words = plans(filled, recipe, query="memory 17")
    assert re.search(r"Bitmap Index Scan on memory_records_\w+ .*actual time", words), words
