"""Moving data: export, import and backfill, as an operator calls them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import uuid
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from fixtures.backfilling import make_source
from fixtures.installing import DATA, connected, rows
from fixtures.server import Server
from fixtures.sidecars import PROGRAM, clean_env
from memory_plugin.installer import cli
from memory_plugin.installer.errors import ImportRefusedError
from memory_plugin.installer.transfer import exporting, ndjson, progress

MEMORIES = (
    "select namespace, id::text, content, kind, source, pin, created_at, expires_at, propagation "
    "from memory_plugin.memory_records"
)
LIVE = "select namespace, content from memory_plugin.memory_records order by 1, 2"


def program(
    database: str, *arguments: str, stdin: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the console script on a database."""
    return subprocess.run(
        [PROGRAM, *arguments],
        env=clean_env(MEMORY_PLUGIN_DATABASE_URL=database),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a successful run printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fill(database: str) -> None:
    """Store a few memories of every shape."""
    with connected(database) as connection:
        connection.execute(
            "select memory_plugin.upsert_namespace('team:a', 'team', '2999-01-01', metadata => '{\"a\": [1, \"ü\"]}')"
        )
        connection.execute(
            "select memory_plugin.commit_memory('team:a', %s, pin => true, propagation => '{\"x\": 1}')",
            ['tab\t"q" \\ \n🙂'],
        )
        connection.execute(
            "select memory_plugin.commit_memory('team:a', 'short', expires_at => '2998-01-01', kind => 'summary')"
        )
        connection.execute(
            "select memory_plugin.commit_memory('org:b', 'vector', embedding => %s)", [str([1.0] + [0.5] * 1535)]
        )
        connection.execute("select memory_plugin.commit_memory('org:b', 'gone', expires_at => '2020-01-01')")


@pytest.mark.parametrize("name", ["memories.ndjson", "memories.ndjson.gz"])
def test_what_is_exported_imports_as_it_was(database: str, empty_database: str, tmp_path: Path, name: str) -> None:
    fill(database)
    file = tmp_path / name
    ok(program(database, "export", "--embeddings", str(file)))
    ok(program(empty_database, "install"))
    ok(program(empty_database, "import", str(file)))
    live = f"{MEMORIES} where content <> 'gone' order by 1, 2"
    assert rows(empty_database, live) == rows(database, live)
    assert len(rows(empty_database, MEMORIES)) == 3
    both = "select name, kind, expires_at, metadata, created_at from memory_plugin.memory_namespaces order by 1"
    assert rows(empty_database, both) == rows(database, both)
    embedding = "select embedding::text from memory_plugin.memory_records where content = 'vector'"
    assert rows(empty_database, embedding) == rows(database, embedding)
    ok(program(empty_database, "import", str(file)))
    assert len(rows(empty_database, MEMORIES)) == 3


def test_an_export_is_json_lines_and_can_be_narrowed(database: str, tmp_path: Path) -> None:
    fill(database)
    lines = [json.loads(line) for line in ok(program(database, "export", "-", "--namespace", "org:b")).splitlines()]
    assert [(line["type"], line.get("name") or line.get("namespace")) for line in lines] == [
        ("namespace", "org:b"),
        ("memory", "org:b"),
    ]
    assert "embedding" not in lines[1]
    ok(program(database, "export", str(tmp_path / "all.gz"), "--all"))
    with gzip.open(tmp_path / "all.gz", "rt") as everything:
        assert sum('"gone"' in line for line in everything) == 1


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_an_export_is_utf8_whatever_the_environment_asks_of_other_programs(database: str, encoding: str) -> None:
    with connected(database) as connection:
        connection.execute("select memory_plugin.commit_memory('team:a', 'naïve')")
    environment = clean_env(MEMORY_PLUGIN_DATABASE_URL=database, PGCLIENTENCODING=encoding)
    done = subprocess.run([PROGRAM, "export", "-"], env=environment, capture_output=True, timeout=60, check=True)
    assert "naïve".encode() in done.stdout
    put = subprocess.run(
        [PROGRAM, "import", "-"], env=environment, input=done.stdout, capture_output=True, timeout=60, check=True
    )
    assert b"unchanged: 1" in put.stdout


def test_a_conflict_is_skipped_updated_or_refused_as_asked(database: str) -> None:
    memory_id = str(uuid.uuid4())
    with connected(database) as connection:
        connection.execute("select memory_plugin.commit_memory('team:a', 'old', id => %s)", [memory_id])
    line = json.dumps(
        {"type": "memory", "id": memory_id, "namespace": "team:a", "content": "new", "kind": "fact", "source": "agent"}
    )
    ok(program(database, "import", "-", stdin=line))
    assert rows(database, LIVE) == [("team:a", "old")]
    refused = program(database, "import", "-", "--on-conflict", "error", stdin=line)
    assert refused.returncode == 29
    assert rows(database, LIVE) == [("team:a", "old")]
    ok(program(database, "import", "-", "--on-conflict", "update", stdin=line))
    assert rows(database, LIVE) == [("team:a", "new")]


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    ("mode", "kept", "counts"), [("skip", "first", (6, 3, 0, 3)), ("update", "second", (6, 3, 1, 2))]
)
def test_an_import_written_in_parts_keeps_what_one_statement_would_and_shows_how_far_it_is(
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    kept: str,
    counts: tuple[int, ...],
) -> None:
    """An id may stand in lines of two parts, and be in the store already."""
    monkeypatch.setattr(ndjson, "_LINES", 2)
    monkeypatch.setattr(progress, "_PLAIN_INTERVAL", 0)
    ids = [str(uuid.UUID(int=number)) for number in range(4)]
    with connected(database) as connection:
        connection.execute("select memory_plugin.commit_memory('team:a', 'there', id => %s)", [ids[3]])
    texts = ((0, "first"), (1, "only"), (2, "first"), (0, "second"), (2, "second"), (3, "new"))
    lines = [json.dumps({**GOOD, "id": ids[number], "content": text}) for number, text in texts]
    (tmp_path / "lines.ndjson").write_text("\n".join(lines))
    capsys.readouterr()
    found = (str(tmp_path / "lines.ndjson"), "--database-url", database, "--on-conflict", mode, "--json")
    assert cli.run(["import", *found]) == 0
    shown = capsys.readouterr()
    done = json.loads(shown.out)
    assert (done["memories"], done["written"], done["updated"], done["unchanged"]) == counts
    assert rows(database, LIVE) == [
        ("team:a", text) for text in sorted([kept, kept, "only", "there" if mode == "skip" else "new"])
    ]
    left = 6 if mode == "skip" else 4
    checking, _, writing = shown.err.partition("import: writing ")
    begun, *parts = checking.partition("import: checking ")[2].splitlines()
    assert (begun, len(parts)) == ("6 lines", 3)
    assert "import: 6 of 6 rows (100%)" in parts[-1]
    begun, *parts = writing.splitlines()
    assert begun == f"{left} memories"
    assert len(parts) == 3
    assert f"import: {left} of {left} rows (100%)" in parts[-1]


def test_lines_are_parted_by_their_number_and_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "_LINES", 3)
    monkeypatch.setattr(ndjson, "_BYTES", 10)
    parts = ndjson.Parts()
    parts.add(b"\n\n\na\n0123456789\n")
    parts.add(b"a\nb\n")
    assert parts.finish() == [(0, 3), (3, 5), (5, 7)]
    assert ndjson.Parts().finish() == []


@pytest.mark.servers("any")
def test_exports_to_one_file_at_once_keep_out_of_each_others_way(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    file = tmp_path / "memories.ndjson"
    write = exporting.write

    def overtaken(*arguments: Any, **options: Any) -> exporting.Exported:
        """Let another export to the same file begin and end first."""
        monkeypatch.setattr(exporting, "write", write)
        assert cli.run(["export", str(file), "--namespace", "org:b", "--database-url", database]) == 0
        assert len(file.read_text().splitlines()) == 2
        return write(*arguments, **options)

    monkeypatch.setattr(exporting, "write", overtaken)
    assert cli.run(["export", str(file), "--database-url", database]) == 0
    assert len(file.read_text().splitlines()) == 5
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.servers("any")
def test_an_export_follows_no_link_of_others_and_only_its_owner_reads_it(database: str, tmp_path: Path) -> None:
    fill(database)
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "memories.ndjson.part").symlink_to(tmp_path / "theirs")
    assert cli.run(["export", str(tmp_path / "memories.ndjson"), "--database-url", database]) == 0
    assert (tmp_path / "theirs").read_text() == "kept"
    assert (tmp_path / "memories.ndjson").stat().st_mode & 0o777 == 0o600


@pytest.mark.servers("any")
def test_an_interrupted_export_takes_its_unfinished_file_away(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> exporting.Exported:
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "write", interrupted)
    assert cli.run(["export", str(tmp_path / "memories.ndjson.gz"), "--database-url", database]) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.servers("any")
def test_an_export_holds_few_large_memories_at_once(database: str) -> None:
    with connected(database) as connection:
        connection.execute(
            "select memory_plugin.commit_memory('team:a', repeat('ab ', 200000) || i) from generate_series(1, 5) as i"
        )
    written: list[int] = []

    class Out(BytesIO):
        def write(self, data: Any) -> int:
            written.append(len(data))
            return super().write(data)

    with connected(database) as connection, progress.meter("export", None) as meter:
        assert exporting.write(connection, Out(), meter).memories == 5
    assert max(written) < 2 * exporting._BYTES_A_WRITE
    assert sum(written) > 3_000_000


def gone() -> int:
    """Return a pipe to write to whose reader has gone."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.servers("any")
@pytest.mark.parametrize("command", ["export -", "uninstall --yes --export -"])
@pytest.mark.parametrize("place", ["full", "gone", "closed"])
def test_standard_output_that_takes_no_export_is_named_and_nothing_is_dropped(
    database: str, command: str, place: str
) -> None:
    fill(database)
    shell = ["sh", "-c", '"$0" "$@" >&-'] if place == "closed" else []
    with open("/dev/full" if place == "full" else gone(), "wb") as stream:
        done = subprocess.run(
            [*shell, PROGRAM, *command.split()],
            env=clean_env(MEMORY_PLUGIN_DATABASE_URL=database),
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 21
    assert done.stderr.splitlines()[-1].startswith(
        "memory-plugin: A setting is not valid: cannot write standard output: "
    )
    assert len(rows(database, MEMORIES)) == 4


def test_standard_input_that_is_closed_is_named(database: str) -> None:
    shell = ["sh", "-c", '"$0" "$@" <&-', str(PROGRAM), "import", "-", "--database-url", database]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 21
    assert "cannot read standard input: it is closed" in done.stderr


@pytest.mark.servers("any")
@pytest.mark.parametrize("cut", [-9, -30, 40])
def test_a_file_that_is_cut_off_is_told_without_what_it_holds(database: str, cut: int) -> None:
    line = json.dumps({**GOOD, "content": "hush " * 200})
    for text in (line[:cut], line.replace('"hush', "hush")):
        done = program(database, "import", "-", stdin=f"{json.dumps(GOOD)}\n{text}")
        assert done.returncode == 28
        assert "line 2: is not JSON, or cut off" in done.stderr
        assert "hush" not in done.stderr
    assert rows(database, LIVE) == []


@pytest.mark.servers("any")
def test_what_is_imported_may_be_compressed_begin_with_a_mark_and_hold_blank_lines(
    database: str, tmp_path: Path
) -> None:
    lines = [json.dumps({**GOOD, "content": text}).encode() for text in ("one", "two")]
    text = b"\xef\xbb\xbf" + lines[0] + b"\n \t \n\n  \r\n" + lines[1] + b"\n  "
    (tmp_path / "plain.gz").write_bytes(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text))
    for number, file in enumerate(("plain.gz", "packed", "-"), start=1):
        data = (tmp_path / "packed").read_bytes()
        name = file if file == "-" else str(tmp_path / file)
        command = [PROGRAM, "import", name, "--database-url", database, "--json"]
        done = subprocess.run(command, env=clean_env(), input=data, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["written"] == 2
        assert rows(database, LIVE) == [("team:a", text) for text in ["one"] * number + ["two"] * number]
    ok(program(database, "export", str(tmp_path / ".gz")))
    assert (tmp_path / ".gz").read_bytes()[:2] == b"\x1f\x8b"


# More different words than a tsvector holds.
WORDS = " ".join(f"w{i:08d}" for i in range(130_000))
GOOD = {"type": "memory", "namespace": "team:a", "content": "fine", "kind": "fact", "source": "agent"}


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ("{", "line 2"),
        ({**GOOD, "content": WORDS}, "different words"),
        (
            {**GOOD, "content": WORDS, "created_at": "2024-05-06T07:08:09Z", "id": str(uuid.UUID(int=7))},
            "different words",
        ),
        ({**GOOD, "content": "a\0b"}, "\\u0000 cannot be converted"),
        ({**GOOD, "content": "a\ud83d"}, "surrogate"),
        ({**GOOD, "content": "a\ude42b"}, "surrogate"),
        ({**GOOD, "namespace": "team:\0"}, "\\u0000 cannot be converted"),
        ({**GOOD, "propagation": {"a": "\0"}}, "\\u0000 cannot be converted"),
        ({**GOOD, "more": "\0"}, "\\u0000 cannot be converted"),
        (
            {"type": "namespace", "name": "team:a", "kind": "team", "metadata": {"a": "\0"}},
            "\\u0000 cannot be converted",
        ),
        ({**GOOD, "content": " "}, "content"),
        ({**GOOD, "kind": "rumour"}, "kind"),
        ({**GOOD, "namespace": "no name"}, "namespace"),
        ({**GOOD, "embedding": [1, 2]}, "1536"),
        ({**GOOD, "id": "x"}, "id"),
        ({**GOOD, "type": "dream"}, "type must be one of: namespace, memory"),
        ({"type": "zzz"}, "type must be one of: namespace, memory"),
        ({}, "type is required"),
    ],
)
def test_a_line_that_breaks_a_rule_is_named_and_nothing_is_imported(database: str, bad: Any, word: str) -> None:
    text = bad if isinstance(bad, str) else json.dumps(bad)
    done = program(database, "import", "-", stdin=f"{json.dumps(GOOD)}\n{text}\n")
    assert done.returncode == 28
    assert "line 2" in done.stdout + done.stderr
    assert word in done.stdout + done.stderr
    assert rows(database, LIVE) == []


def test_a_line_too_long_to_hold_is_named_and_not_read_to_its_end(database: str, tmp_path: Path) -> None:
    good = json.dumps(GOOD)
    file = tmp_path / "long.ndjson"
    file.write_text(f"{good}\n{good}\n" + json.dumps({**GOOD, "content": "ab " * 23_000_000}) + f"\n{good}\n")
    done = program(database, "import", str(file))
    assert done.returncode == 28
    assert "line 3: a line must take at most 67108864 bytes" in done.stderr
    assert rows(database, LIVE) == []


def test_a_long_line_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "_CHUNK", 4)
    monkeypatch.setattr(ndjson, "_LONGEST_LINE", 20)
    for text in (
        b"",
        b"a",
        b"a\n",
        b"abcd\nefgh\n\ni",
        b"abc\ndef\n",
        b"a" * 20,
        b"a" * 20 + b"\nb\n" + b"c" * 20 + b"\n",
    ):
        read = b"".join(ndjson.whole_lines(BytesIO(text)))
        assert read == (text if text.endswith(b"\n") or not text else text + b"\n")
    for text, line in ((b"a" * 21, 1), (b"a\nb\n" + b"c" * 21 + b"\nd\n", 3), (b"\n" * 9 + b"c" * 30, 10)):
        with pytest.raises(ImportRefusedError, match=f"line {line}: "):
            list(ndjson.whole_lines(BytesIO(text)))


def test_an_escaped_backslash_before_a_u_is_text(database: str) -> None:
    content = r"C:\u0000 and \ud83d"
    ok(program(database, "import", "-", stdin=json.dumps({**GOOD, "content": content})))
    assert rows(database, LIVE) == [("team:a", content)]


@pytest.fixture
def earlier(database: str) -> dict[str, str]:
    """Make the platform's earlier tables with a tree of workspaces; return their ids by name."""
    ids = {
        name: str(uuid.uuid4()) for name in ("root", "child", "leaf", "alone", "ring1", "ring2", "orphan", "missing")
    }
    with connected(database) as connection:
        connection.execute("create table public.workspaces (id uuid primary key, parent_id uuid)")
        connection.execute(
            "create table public.agent_memories (id uuid primary key, workspace_id uuid not null, content text, "
            "scope text, namespace text, created_at timestamptz not null default now(), updated_at timestamptz, "
            "embedding vector(1536))"
        )
        parents = {"child": "root", "leaf": "child", "ring1": "ring2", "ring2": "ring1", "orphan": "missing"}
        for name in ("root", "child", "leaf", "alone", "ring1", "ring2", "orphan"):
            connection.execute(
                "insert into public.workspaces values (%s, %s)", [ids[name], ids.get(parents.get(name, ""))]
            )
        for name in ("root", "child", "leaf", "ring1", "orphan"):
            for scope in ("LOCAL", "TEAM", "GLOBAL"):
                connection.execute(
                    "insert into public.agent_memories (id, workspace_id, content, scope, created_at) "
                    "values (gen_random_uuid(), %s, %s, %s, '2024-05-06 07:08:09+00')",
                    [ids[name], f"{name} {scope}", scope],
                )
        connection.execute(
            "insert into public.agent_memories (id, workspace_id, content, scope) "
            "values (gen_random_uuid(), %s, ' ', 'LOCAL')",
            [ids["root"]],
        )
        connection.execute("set search_path = public, memory_plugin")
    return ids


@pytest.fixture
def database(new_public_database: Callable[[], str]) -> str:
    """Return a database whose pgvector a plain search_path finds, as an earlier platform's would."""
    return new_public_database()


def test_a_backfill_places_every_scope_and_refuses_what_the_tree_cannot_answer(
    database: str, earlier: dict[str, str], tmp_path: Path
) -> None:
    dry = ok(program(database, "backfill", "--dry-run", cwd=tmp_path))
    assert rows(database, LIVE) == []
    assert f"org:{earlier['root']}" in dry
    done = program(database, "backfill", "--json", cwd=tmp_path)
    ok(done)
    expected = {
        (f"workspace:{earlier[name]}", f"{name} LOCAL") for name in ("root", "child", "leaf", "ring1", "orphan")
    } | {
        (f"team:{earlier['root']}", "root TEAM"),
        (f"team:{earlier['root']}", "child TEAM"),
        (f"team:{earlier['child']}", "leaf TEAM"),
        (f"org:{earlier['root']}", "root GLOBAL"),
        (f"org:{earlier['root']}", "child GLOBAL"),
        (f"org:{earlier['root']}", "leaf GLOBAL"),
    }
    have = set(rows(database, LIVE))
    # A circle's parent is known though its root is not.
    assert expected <= have <= expected | {(f"team:{earlier['ring2']}", "ring1 TEAM")}
    kept = (
        "select count(*) from memory_plugin.memory_records r "
        "join public.agent_memories a using (id, created_at, content)"
    )
    assert rows(database, kept) == [(len(have),)]
    refused = (tmp_path / "backfill-refused.ndjson").read_text().splitlines()
    assert len(refused) == 16 - len(have)
    assert all("reason" in json.loads(line) for line in refused)


def test_a_backfill_repeats_without_a_duplicate_and_verifies(
    database: str, earlier: dict[str, str], tmp_path: Path
) -> None:
    ok(program(database, "backfill", cwd=tmp_path))
    before = rows(database, f"{MEMORIES} order by 2")
    ok(program(database, "backfill", "--batch-size", "2", cwd=tmp_path))
    assert rows(database, f"{MEMORIES} order by 2") == before
    ok(program(database, "backfill", "--verify", cwd=tmp_path))
    rows(database, "update memory_plugin.memory_records set content = 'changed' where content = 'leaf TEAM'")
    mismatch = program(database, "backfill", "--verify", cwd=tmp_path)
    assert mismatch.returncode == 27
    assert f"team:{earlier['child']}" in mismatch.stdout + mismatch.stderr


@pytest.mark.servers("any")
@pytest.mark.parametrize("command", ["import -", "backfill", "backfill --verify", "adopt-public"])
def test_a_role_without_temporary_tables_gets_the_grant_and_then_goes_on(
    server: Server, database: str, new_role: Callable[..., str], tmp_path: Path, command: str
) -> None:
    role, name = new_role(password="x"), database.partition("?")[0].rpartition("/")[2]
    if command.startswith("backfill"):
        make_source(database)
    with connected(database) as connection:
        if command == "adopt-public":
            connection.execute("set search_path = public, memory_plugin")
            connection.execute((DATA / "earlier_shape.sql").read_bytes())
        connection.execute(f'grant memory_plugin_owner to "{role}"'.encode())
        connection.execute(f'grant all on all tables in schema public to "{role}"'.encode())
        connection.execute(f'revoke temporary on database "{name}" from public'.encode())
    url = server.url(name, user=role, password="x", tcp=not server.managed)
    refused = program(url, *command.split(), stdin="", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (22, 1), refused.stderr
    grant = refused.stderr.rpartition("run: ")[2].strip()
    assert grant == f"grant temporary on database {name} to {role}"
    rows(database, grant)
    ok(program(url, *command.split(), stdin="", cwd=tmp_path))
