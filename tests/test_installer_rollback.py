"""The down files, which an operator runs by hand: each undoes its migration, and the next install does it again."""

from __future__ import annotations

import pytest

from fixtures.installing import MIGRATIONS, connected, install, rows
from memory_plugin.installer import sources

DOWNS = sorted((path.name for path in MIGRATIONS.glob("*.down.sql")), reverse=True)
FILLED = {"extschema:vector": "memory_plugin", "dimensions": "1536", "text_search_config": "english"}


def functions_of_ours(url: str) -> list[str]:
    """Return our functions, which an operator drops before the types that they use."""
    query = """
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'memory_plugin'::regnamespace
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    """
    return [signature for (signature,) in rows(url, query)]


def test_every_migration_has_a_down_file() -> None:
    ups = {path.name.replace(".up.", ".down.") for path in MIGRATIONS.glob("*.up.sql")}
    assert set(DOWNS) == ups


@pytest.mark.parametrize("keep", range(1, len(DOWNS)))
def test_migrations_can_be_undone_one_by_one_and_done_again(database: str, keep: int) -> None:
    with connected(database) as connection:
        connection.execute("select memory_plugin.commit_memory('team:a', 'an apple')")
        before = connection.execute("select name from memory_plugin.schema_migrations order by 1").fetchall()
        connection.execute("drop policy memory_plugin_reader on memory_plugin.memory_namespaces")
        connection.execute("drop policy memory_plugin_reader on memory_plugin.memory_records")
        for signature in functions_of_ours(database):
            connection.execute(f"drop routine if exists {signature} cascade")  # type: ignore[arg-type]
        for name in DOWNS[: len(DOWNS) - keep]:
            text = sources.render((MIGRATIONS / name).read_text(), FILLED, name)
            connection.execute(text)  # type: ignore[arg-type]
        left = connection.execute("select count(*) from memory_plugin.schema_migrations").fetchone()
        assert left == (keep,)
    install(database)
    assert rows(database, "select name from memory_plugin.schema_migrations order by 1") == before
    kept = [("an apple",)] if keep > 1 else []
    assert rows(database, "select content from memory_plugin.search(array['team:a'])") == kept
