"""PL/Python functions are built from plain Python, and applied where the language can be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.installing import install, refusal, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api, plpython

DECLARATION = """create or replace function memory_plugin.f(content text) returns text language plpython3u as $python$
    @source@
$python$;
comment on function memory_plugin.f(text) is 'Placeholder: @dimensions@.';
"""
FUNCTIONS = "select proname from pg_proc p join pg_language l on l.oid = prolang where lanname = 'plpython3u'"


def write(folder: Path, source: str, declaration: str = DECLARATION) -> Path:
    """Write one function's two files."""
    (folder / "f.py").write_text(source)
    (folder / "f.sql").write_text(declaration)
    return folder


def test_the_source_takes_the_place_and_the_indent_of_its_line(tmp_path: Path) -> None:
    built = plpython.build(
        "f", {"dimensions": "3"}, write(tmp_path, "import re\n\nif content:\n    return re.escape(content)\n")
    )
    assert built == (
        "create or replace function memory_plugin.f(content text) returns text language plpython3u as $python$\n"
        "    import re\n\n    if content:\n        return re.escape(content)\n$python$;\n"
        "comment on function memory_plugin.f(text) is 'Placeholder: 3.';\n"
    )


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("from __future__ import annotations\n", "line 1: from __future__"),
        ("x = 1\nfrom . import y\n", "line 2: a relative import"),
        ('x = """one\ntwo"""\n', "multi-line string"),
        ('x = f"""one\n{1}\ntwo"""\n', "multi-line string"),
        ("x = '$python$'\n", "would end the function's body"),
        ("def f(:\n", "line 1"),
    ],
)
def test_a_source_that_would_not_survive_is_refused(tmp_path: Path, source: str, named: str) -> None:
    with pytest.raises(plpython.SourceError) as caught:
        plpython.build("f", None, write(tmp_path, source))
    assert named in caught.value.message
    assert "plpy/f.py" in caught.value.message


@pytest.mark.parametrize(
    ("declaration", "named"),
    [("select 1;", "holds 0"), (DECLARATION + DECLARATION, "holds 2"), ("@source@", "dollar quote")],
)
def test_a_declaration_without_a_place_for_the_source_is_refused(tmp_path: Path, declaration: str, named: str) -> None:
    with pytest.raises(plpython.SourceError) as caught:
        plpython.build("f", None, write(tmp_path, "pass\n", declaration))
    assert named in caught.value.message


def test_every_function_of_the_package_can_be_built() -> None:
    assert "redact" in plpython.names()
    for name in plpython.names():
        assert "@source@" not in plpython.build(
            name, {"extschema:vector": "public", "dimensions": "3", "text_search_config": "simple"}
        )


@pytest.mark.servers("full")
def test_the_functions_come_and_go_with_the_setting(empty_database: str) -> None:
    names = [(name,) for name in plpython.names()]
    assert install(empty_database, plpython="auto").plpython is True
    assert rows(empty_database, FUNCTIONS + " and pronamespace = 'memory_plugin'::regnamespace order by 1") == names
    assert install(empty_database, plpython="off").plpython is False
    assert rows(empty_database, FUNCTIONS + " and pronamespace = 'memory_plugin'::regnamespace") == []
    assert any("not applied" in line for line in api.verify_store(settings_for(empty_database)).warnings)
    assert install(empty_database, plpython="require").plpython is True


@pytest.mark.servers("full")
def test_a_later_install_by_a_plain_owner_keeps_them(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    install(empty_database)
    role = new_role(password="x")
    rows(empty_database, f"alter schema memory_plugin owner to {role}")
    for (statement,) in rows(
        empty_database,
        f"""
        select format('alter %s %s owner to {role}', case relkind when 'c' then 'type' else 'table' end, oid::regclass)
        from pg_class c where relnamespace = 'memory_plugin'::regnamespace and relkind in ('r', 'c')
        union all
        select format('alter routine %s owner to {role}', oid::regprocedure) from pg_proc p
        where pronamespace = 'memory_plugin'::regnamespace
        and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
        """,
    ):
        rows(empty_database, statement)
    result = install(
        server.url(empty_database.split("/")[3].split("?")[0], user=role, password="x", tcp=not server.managed)
    )
    assert result.plpython is True
    assert "kept" in result.notes[0]
    assert rows(empty_database, FUNCTIONS + " and pronamespace = 'memory_plugin'::regnamespace") != []


@pytest.mark.servers("full")
def test_functions_that_the_language_refuses_are_left_out_in_auto_and_fatal_in_require(empty_database: str) -> None:
    # As after the package was removed: the extension is there, and its handler is not what it was.
    rows(empty_database, "create extension plpython3u")
    rows(empty_database, "update pg_language set laninline = 0 where lanname = 'plpython3u'")
    result = install(empty_database)
    assert result.plpython is False
    assert "PL/Python functions dropped" in result.notes[0]
    assert api.verify_store(settings_for(empty_database)).differences == ()
    assert refusal(empty_database, plpython="require").exit_code == 15


@pytest.mark.servers("embedded")
def test_a_server_without_the_language_gets_everything_else_and_one_line(empty_database: str) -> None:
    result = install(empty_database)
    assert result.plpython is False
    assert len(result.notes) == 1
    assert "plpython3u is not installed on the server" in result.notes[0]
