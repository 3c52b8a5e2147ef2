"""How each function that is not private is called: one script that goes through all of them, in an order that works."""

from __future__ import annotations

import re
from typing import Any

import psycopg

# Moments, and how long a wait is left, which jitter decides.
_TIME = re.compile(r"'seconds': [0-9.]+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")

ID = "11111111-2222-3333-4444-555555555555"
# Spelled out, as the caller's own operators may be anybody's.
ONE = "[" + ",".join(f"{0.001 * (i % 7 - 3):.3f}" for i in range(1536)) + "]"

# Function and its call; {n} is a namespace of the caller's. No answer holds an identifier of the
# server's making. Every name outside is qualified: the caller's own path may be anybody's.
CALLS: tuple[tuple[str, str], ...] = (
    ("configure", "select memory_plugin.configure()"),
    ("health", "select status from memory_plugin.health()"),
    ("v1_health", "select memory_plugin.v1_health()"),
    ("upsert_namespace", "select name, kind from memory_plugin.upsert_namespace('{n}', 'workspace')"),
    (
        "v1_put_namespace",
        """select memory_plugin.v1_put_namespace('{n}', '{{"kind": "workspace", "metadata": {{}}}}')""",
    ),
    ("patch_namespace", "select name from memory_plugin.patch_namespace('{n}', '2999-01-01', '{{}}')"),
    ("v1_patch_namespace", """select memory_plugin.v1_patch_namespace('{n}', '{{"expires_at": null}}')"""),
    (
        "commit_memory",
        f"select memory_plugin.commit_memory('{{n}}', 'a red apple', id => '{ID}', embedding => '{ONE}')",
    ),
    (
        "v1_commit_memory",
        "select memory_plugin.v1_commit_memory('{n}', "
        """'{{"content": "a green pear", "kind": "fact", "source": "agent"}}') is not null""",
    ),
    (
        "v1_commit_memories",
        "select pg_catalog.length(memory_plugin.v1_commit_memories(array['{n}'], "
        """array['{{"content": "a blue plum", "kind": "fact", "source": "agent"}}']))""",
    ),
    ("get_memory", f"select content, kind from memory_plugin.get_memory('{{n}}', '{ID}')"),
    ("search", "select content from memory_plugin.search(array['{n}'])"),
    ("search", "select content from memory_plugin.search(array['{n}'], query => '\"red apple\" pear -plum')"),
    ("search", f"select content from memory_plugin.search(array['{{n}}'], embedding => '{ONE}')"),
    ("search", f"select content from memory_plugin.search(array['{{n}}'], query => 'apple', embedding => '{ONE}')"),
    ("find_duplicates", "select group_no, content from memory_plugin.find_duplicates('{n}', 0.9)"),
    ("v1_search", """select memory_plugin.v1_search('{{"namespaces": ["{n}"], "query": "apple"}}') is not null"""),
    ("search_recall", "select namespace, sampled, recall from memory_plugin.search_recall(array['{n}'])"),
    ("stats", "select memory_plugin.stats() is not null"),
    ("sweep", "select memory_plugin.sweep(10)"),
    ("maintain", "select memory_plugin.maintain(10)"),
    ("redact", "select memory_plugin.redact('no secret')"),
    ("embedding_status", "select memory_plugin.embedding_status() is not null"),
    ("embedding_provider", "select memory_plugin.embedding_provider() is not null"),
    ("embedding_session", "select memory_plugin.embedding_session()"),
    ("embedding_failures", "select pg_catalog.count(*) from memory_plugin.embedding_failures()"),
    (
        "configure_embedding",
        "select memory_plugin.configure_embedding('http://127.0.0.1:9/v1/embeddings', 'm', 1536) is not null",
    ),
    ("test_embedding", "select memory_plugin.test_embedding() is not null"),
    # False where that was known already.
    ("embedding_query_failed", "select memory_plugin.embedding_query_failed() is not null"),
    ("embedding_claim", "select pg_catalog.count(*) from memory_plugin.embedding_claim(1)"),
    (
        "embedding_settle",
        "select memory_plugin.embedding_settle(pg_catalog.gen_random_uuid(), array['{n}'], "
        f"array['{ID}'::pg_catalog.uuid], array['x'], array[null::pg_catalog.text], null, null, null, 1)",
    ),
    ("retry_embeddings", "select memory_plugin.retry_embeddings()"),
    ("embed_pending", "call memory_plugin.embed_pending(1)"),
    ("remove_embedding_provider", "select memory_plugin.remove_embedding_provider() is not null"),
    (
        "forget_memory",
        f"select memory_plugin.forget_memory('{ID}', '{{n}}')",
    ),
    (
        "v1_forget_memory",
        f"""select memory_plugin.v1_forget_memory('{ID}', '{{{{"requested_by_namespace": "{{n}}"}}}}')""",
    ),
    ("delete_namespace", "select memory_plugin.delete_namespace('{n}')"),
    ("v1_delete_namespace", "select memory_plugin.v1_delete_namespace('{n}')"),
)


def callable_functions(conn: psycopg.Connection[Any]) -> set[str]:
    """Return the names of our functions that are there to be called: not private, no trigger's."""
    found = conn.execute(r"""
        select distinct p.proname::text from pg_proc p
        where p.pronamespace = 'memory_plugin'::regnamespace and p.proname not like '\_%'
            and p.prorettype <> 'trigger'::regtype
            and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                and d.deptype = 'e')
    """).fetchall()
    return {name for (name,) in found}


def answers(conn: psycopg.Connection[Any], namespace: str, there: set[str]) -> list[tuple[str, str]]:
    """Call all those that are there, and return each call with its rows, or with its error's code and words."""
    given = []
    for name, call in CALLS:
        if name not in there:
            continue
        statement = call.format(n=namespace)
        try:
            answer = _TIME.sub("WHEN", str(conn.execute(statement.encode()).fetchall()))
        except psycopg.Error as error:
            answer = f"{error.sqlstate}: {error.diag.message_primary}"
        given.append((statement, answer))
    return given
