"""The rules for the database URL: every form an operator may have set, and that a password never shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from fixtures.server import Server
from memory_plugin.installer import conninfo, dsn
from memory_plugin.installer.commands.dsn import command
from memory_plugin.installer.errors import BadSettingError

OURS = "-c search_path=memory_plugin,public"
PASSWORD = "pä:ss/w@rd?#&= 'x\\y%41"
ENCODED = quote(PASSWORD, safe="")

# What DATABASE_URL holds, and the parts libpq must see in what is derived from it (options apart: always OURS).
DERIVED = {
    "no query": ("postgres://u@h/db", {"user": "u", "host": "h", "dbname": "db"}),
    "the other scheme": ("postgresql://u@h:5433/db", {"port": "5433"}),
    "scheme in capitals": ("POSTGRES://u@h/db", {"user": "u"}),
    "nothing but the scheme": ("postgresql://", {}),
    "no database": ("postgres://u@h", {"host": "h"}),
    "a bare question mark": ("postgres://u@h/db?", {"dbname": "db"}),
    "an empty parameter": ("postgres://u@h/db?sslmode=disable&", {"sslmode": "disable"}),
    "blanks around": ("  postgres://u@h/db\n", {"dbname": "db"}),
    "sslmode": ("postgres://u@h/db?sslmode=disable", {"sslmode": "disable"}),
    "its own search_path": ("postgres://u@h/db?search_path=app", {"dbname": "db"}),
    "our search_path already": ("postgres://u@h/db?search_path=memory_plugin%2Cpublic&sslmode=disable", {"host": "h"}),
    "an encoded password": (f"postgres://u:{ENCODED}@h/db", {"password": PASSWORD}),
    "an encoded user": ("postgres://a%40b:c@h/db", {"user": "a@b", "password": "c"}),
    "@ in the password, as Go reads it": ("postgres://u:p@ss@h/db", {"user": "u", "password": "p@ss", "host": "h"}),
    "? in the password, as libpq reads it": ("postgres://u:p?ss@h/db", {"password": "p?ss", "host": "h"}),
    "# in the password": ("postgres://u:p#ss@h/db", {"password": "p#ss", "host": "h"}),
    "@ in the query": ("postgres://u:p@h/db?application_name=a@b", {"password": "p", "application_name": "a@b"}),
    "password as parameter": ("postgres://h/db?user=u&password=p%26q", {"password": "p&q"}),
    "IPv6": ("postgres://u@[::1]:5433/db", {"host": "::1", "port": "5433"}),
    "IPv6 without port": ("postgres://u@[2001:db8::1]/db", {"host": "2001:db8::1"}),
    "several hosts": ("postgres://u@a:1,b:2,[::1]:3/db", {"host": "a,b,::1", "port": "1,2,3"}),
    "several hosts, one port": ("postgres://u@a,b/db?target_session_attrs=read-write", {"host": "a,b"}),
    "socket as parameter": ("postgres://u@/db?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "db"}),
    "socket as encoded host": ("postgres://u@%2Frun%2Fpostgresql/db", {"host": "/run/postgresql"}),
    "a Python driver in the scheme": ("postgresql+psycopg://u@h/db", {"host": "h"}),
    "key=value": ("host=h user=u dbname=db", {"host": "h", "user": "u", "dbname": "db"}),
    "key=value, quoted": (r"host=h password='it\'s a \\ secret' dbname=db", {"password": r"it's a \ secret"}),
    "key=value, blanks": ("host = h  dbname= 'my db' ", {"host": "h", "dbname": "my db"}),
    "key=value, empty": ("host=h password='' dbname=db", {"password": ""}),
    "key=value, search_path": ("host=h dbname=db search_path=app,public", {"dbname": "db"}),
    "key=value, hosts": ("host=a,b port=1,2 dbname=db", {"host": "a,b", "port": "1,2"}),
    "= in a value": ("postgres://h/db?application_name=a=b", {"application_name": "a=b"}),
    "knobs of the Go drivers": (
        "postgres://u@h/db?pool_max_conns=5&default_query_exec_mode=exec&binary_parameters=yes&sslmode=disable",
        {"dbname": "db", "sslmode": "disable"},
    ),
    "ssl=true": ("postgres://h/db?ssl=true", {"sslmode": "require"}),
}

# What MEMORY_PLUGIN_DATABASE_URL holds, and the options libpq must see.
EXPLICIT = {
    "no search_path": ("postgres://u@h/db?sslmode=disable", None),
    "Go's parameter": ("postgres://u@h/db?search_path=memory_plugin", "-c search_path=memory_plugin"),
    "Go's parameter, encoded": ("postgres://h/d?search_path=memory_plugin%2Cpublic", OURS),
    "Go's parameter, + for a blank": ("postgres://h/d?search_path=a,+b", r"-c search_path=a,\ b"),
    "Go's parameter, quoted name": ("postgres://h/d?search_path=%22My%20S%22", '-c search_path="My\\ S"'),
    "Go's parameter, empty": ("postgres://h/d?search_path=", None),
    "the last of two": ("postgres://h/d?search_path=a&search_path=b", "-c search_path=b"),
    "in options": ("postgres://h/d?options=-c%20search_path%3Dx", "-c search_path=x"),
    "in options, = not encoded": ("postgres://h/d?options=-c%20search_path=x", "-c search_path=x"),
    "in options, blanks not encoded": ("postgres://h/d?options=-c search_path=x", "-c search_path=x"),
    "in options, + for a blank": (
        "postgres://h/d?options=-c+search_path%3Dx+-c+jit%3Doff",
        "-c search_path=x -c jit=off",
    ),
    "options win": ("postgres://h/d?search_path=y&options=-csearch_path%3Dx", "-c search_path=x"),
    "other options kept": (
        "postgres://h/d?options=-c%20statement_timeout%3D5s&search_path=x",
        "-c statement_timeout=5s -c search_path=x",
    ),
    "a setting of the server, as Go takes it": (
        "postgres://h/d?statement_timeout=5000&search_path=x",
        "-c statement_timeout=5000 -c search_path=x",
    ),
    "settings of the server beside options": (
        "postgres://h/d?lock_timeout=7&options=-c%20jit%3Doff&statement_timeout=5000",
        "-c jit=off -c statement_timeout=5000 -c lock_timeout=7",
    ),
    "key=value": ("host=h search_path=x options='-c jit=off'", "-c jit=off -c search_path=x"),
}

REFUSED = {
    "another database": ("mysql://u:sEcret@h/db", "must begin with postgres://"),
    "no URL at all": ("sEcret", "must begin with postgres://"),
    "a parameter that no driver knows": ("postgres://u:sEcret@h/db?sslmod=disable", "sslmod"),
    "several": ("postgres://u:sEcret@h/db?pool_size=5&channel=x", "channel, pool_size"),
    "a parameter of another in key=value": ("host=h sslmod=x password=sEcret", "sslmod"),
    "bare IPv6": ("postgres://u:sEcret@::1/db", "brackets"),
    "open bracket": ("postgres://u:sEcret@[::1/db", "closing bracket"),
    "text behind a bracket": ("postgres://u:sEcret@[::1]sEcret:5432/db", "closing bracket"),
    "blank in the host": ("postgres://u:p@sEcret h/db", "a character in the host"),
    "/ in the password": ("postgres://u:sEcret/sEcret@h/db", "port"),
    "a port out of range": ("postgres://u:sEcret@h:70000/db", "port"),
    "% that encodes nothing": ("postgres://u:sEcret%zz@h/db", "%25"),
    "%00": ("postgres://u:sEcret%00@h/db", "%00"),
    "bytes that are not UTF-8": ("postgres://u:sEcret%ff@h/db", "UTF-8"),
    "bytes as they are that are not UTF-8": ("postgres://u:sEcret\udce9@h/db", "UTF-8"),
    "pairs with bytes that are not UTF-8": ("host=h password=sEcret\udce9", "UTF-8"),
    "parameter without =": ("postgres://u:p@h/db?sEcret", "without ="),
    "unclosed quote": ("host=h password='sEcret", "key=value"),
    "blank in an unquoted value": ("host=h password=my sEcret", "key=value"),
    "control character": ("postgres://u:sEcret@h/db\x01", "control character"),
    "what libpq takes in another form": ("postgres://u:sEcret@h/db?ssl=sEcret", "not a valid connection string"),
    "what libpq takes in a URL": ("host=h ssl=true password=sEcret", "not a valid connection string"),
    "an unknown keyword from a password": ("postgres://h/db?sEcret%2F=1", "libpq does not know: ***"),
}


def cases(table: Mapping[str, tuple[str, object]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("url", "expected"), table.values(), ids=table)


@cases(DERIVED)
def test_url_derived_from_database_url_carries_our_search_path_and_all_else(url: str, expected: dict[str, str]) -> None:
    seen = conninfo_to_dict(dsn.in_force(url, "DATABASE_URL"))
    assert seen.pop("options") == OURS
    assert {key: seen[key] for key in expected} == expected
    assert "search_path" not in seen


@cases(EXPLICIT)
def test_explicit_url_only_has_its_search_path_translated(url: str, expected: str | None) -> None:
    in_force = dsn.in_force(url, "MEMORY_PLUGIN_DATABASE_URL")
    assert conninfo_to_dict(in_force).get("options") == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p%41@h:5/db?sslmode=disable&application_name=x%20y",
        "postgresql://h/db?options=-c%20jit%3Doff%20%20-c%20search_path%3Da%2Cb",
        "host=h  user='a b'   password = x",
    ],
)
def test_explicit_url_without_a_go_parameter_is_passed_on_unchanged(url: str) -> None:
    assert conninfo_to_dict(dsn.in_force(url, "MEMORY_PLUGIN_DATABASE_URL")) == conninfo_to_dict(url)
    if "://" in url:
        assert dsn.in_force(url, "MEMORY_PLUGIN_DATABASE_URL") == url


def test_command_line_url_keeps_its_search_path_and_gets_ours_when_it_has_none() -> None:
    assert conninfo_to_dict(dsn.in_force("postgres://h/d", "--database-url"))["options"] == OURS
    own = dsn.in_force("postgres://h/d?search_path=a", "--database-url")
    assert conninfo_to_dict(own)["options"] == "-c search_path=a"


def test_derived_url_keeps_the_options_that_set_something_else() -> None:
    url = "postgres://h/d?options=-c%20statement_timeout%3D5s%20--search-path%3Dapp%20-c%20Search_Path%3Dz%20-e"
    in_force = conninfo_to_dict(dsn.in_force(url, "DATABASE_URL"))
    assert in_force["options"] == f"-c statement_timeout=5s -e {OURS}"


def test_deriving_twice_changes_nothing() -> None:
    for url, _ in DERIVED.values():
        once = dsn.in_force(url, "DATABASE_URL")
        assert dsn.in_force(once, "DATABASE_URL") == once
        assert dsn.in_force(once, "MEMORY_PLUGIN_DATABASE_URL") == once


@cases(REFUSED)
def test_bad_url_is_refused_naming_variable_and_rule_never_the_url(url: str, expected: str) -> None:
    with pytest.raises(BadSettingError) as refusal:
        dsn.in_force(url, "DATABASE_URL")
    line = refusal.value.line
    assert expected in line
    assert "DATABASE_URL" in line
    assert "sEcret" not in line
    assert "\n" not in line
    assert refusal.value.exit_code == 21


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgres://h/d?options=-c%20search_path%3Da&sslmode=disable",
            {"host": "h", "dbname": "d", "sslmode": "disable"},
        ),
        (
            "postgres://h/d?options=-c%20jit%3Doff%20-c%20search_path%3Da",
            {"host": "h", "dbname": "d", "options": "-c jit=off"},
        ),
        ("postgres://h/d?search_path=a", {"host": "h", "dbname": "d"}),
        ("host=h options='-csearch_path=a'", {"host": "h"}),
        ("host=h", {"host": "h"}),
    ],
)
def test_without_search_path_takes_nothing_else(url: str, expected: dict[str, str]) -> None:
    assert conninfo_to_dict(dsn.without_search_path(url)) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:sEcret@h/db",
        "postgres://u:sEcret@a,b/db?sslmode=disable",
        "postgres://u:x@sEcret@h/db",
        "postgres://u:sEc%52et%41@h/db",
        "postgresql+psycopg://u:sEcret@h/db",
        "postgres://h/db?password=sEcret&sslpassword=sEcret",
        "host=h password=sEcret",
        "host=h PASSWORD=sEcret",
        r"host=h password='a \' sEcret' dbname=db",
        "host=h dbname=postgres://u:sEcret@h/db",
        "postgres://u:p/sEcret@h/db",
        "mysql://u:sEcret@h/db",
        "sEcret",
        "password=my sEcret x=",
        "postgres://u:p%zzsEcret@h/db?x",
    ],
)
def test_mask_never_shows_a_password(url: str) -> None:
    masked = dsn.mask(url)
    assert "sEcret" not in masked
    assert "***" in masked
    assert "sEcret" not in dsn.scrub(f"could not connect to {url}.", url)


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("postgres://u:s%20Ecret@h/db", "s Ecret"),
        ("postgres://u:s%20Ecret@h/db", "s%20Ecret"),
        ("postgres://u:s Ecret@h/db", "s%20Ecret"),
        (r"host=h password='s\'Ecret'", "s'Ecret"),
        (r"host=h password='s\'Ecret'", r"s\'Ecret"),
        ("postgres://h/db?sslpassword=sEcret", "sEcret"),
        ("postgres://u:sEcret\udce9@h/db", "sEcret\udce9"),
        (None, "postgres://u:sEcret@h/db"),
        (None, "password=sEcret"),
        (None, "password = 's Ecret'"),
        ("postgres://u:pa:sEcret/x@h/db", "pa:sEcret/x"),
    ],
)
def test_scrub_hides_a_known_password_however_it_is_written(url: str | None, written: str) -> None:
    assert "Ecret" not in dsn.scrub(f"could not connect ({written}) to h", url)
    assert dsn.scrub(f"could not connect ({written}) to h", url).startswith("could not connect (")


def test_mask_leaves_all_else_readable() -> None:
    assert dsn.mask("postgres://u:p@h:1/db?sslmode=disable") == "postgres://u:***@h:1/db?sslmode=disable"
    assert dsn.mask("postgres://u@h/db") == "postgres://u@h/db"
    assert dsn.mask("postgres://u:@h/db") == "postgres://u:@h/db"


@given(password=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=3), as_pairs=st.booleans())
def test_any_password_survives_the_way_to_libpq_and_shows_in_no_message(password: str, as_pairs: bool) -> None:
    url = f"postgres://u:{quote(password, safe='')}@h/db?search_path=a"
    if as_pairs:
        escaped = password.replace("\\", "\\\\").replace("'", "\\'")
        url = f"host=h password='{escaped}' dbname=db search_path=a"
    in_force = dsn.in_force(url, "DATABASE_URL")
    assert conninfo_to_dict(in_force)["password"] == password
    assert conninfo.parse(dsn.mask(in_force)).get("password") in (None, "***")
    text = f"[{password}] and {in_force} and {url}"
    bare = dsn.scrub(text, url)
    assert f"[{password}]" not in bare
    assert f":{quote(password, safe='')}@" not in bare


@pytest.mark.servers("any")
@pytest.mark.parametrize("form", ["url", "pairs"])
def test_server_shows_the_search_path_of_the_url_in_force(server: Server, form: str) -> None:
    url = server.url(tcp=False)
    if form == "pairs":
        url = " ".join(f"{key}='{value}'" for key, value in conninfo_to_dict(url).items())
    with_options = dsn.in_force(url, "DATABASE_URL")
    with psycopg.connect(with_options) as conn:
        assert conn.execute("show search_path").fetchone() == ("memory_plugin,public",)
    with psycopg.connect(dsn.without_search_path(with_options)) as conn:
        assert conn.execute("show search_path").fetchone() == ('"$user", public',)


@pytest.mark.servers("any")
def test_server_reads_a_path_with_blanks_and_quotes_and_the_other_options(server: Server) -> None:
    path = '"My \\ Schema", "it\'s", public'
    separator = "&" if "?" in server.url() else "?"
    url = f"{server.url()}{separator}search_path={quote(path)}&options=-c%20statement_timeout%3D7s%20--jit%3Doff"
    with psycopg.connect(dsn.in_force(url, "MEMORY_PLUGIN_DATABASE_URL")) as conn:
        shown = [conn.execute(f"show {name}").fetchone() for name in ("search_path", "statement_timeout", "jit")]
    assert shown == [(path,), ("7s",), ("off",)]


@pytest.mark.servers("any")
@pytest.mark.parametrize("password", [PASSWORD, "p@ss", "plain"])
def test_password_of_any_characters_is_accepted_by_the_server(server: Server, password: str) -> None:
    server.create_role("dsn_test", password=password)
    try:
        url = dsn.in_force(server.url(user="dsn_test", password=password, tcp=True), "DATABASE_URL")
        with psycopg.connect(url) as conn:
            assert conn.execute("select current_user").fetchone() == ("dsn_test",)
    finally:
        server.drop_role("dsn_test")


def run(arguments: list[str], **environ: str) -> str:
    unset: dict[str, str | None] = {"DATABASE_URL": None, "MEMORY_PLUGIN_DATABASE_URL": None}
    return CliRunner().invoke(command, arguments, env={**unset, **environ}, catch_exceptions=False).output


def test_dsn_command_hides_the_password_unless_told_to_show_it() -> None:
    url = "postgres://u:sEcret@h/db"
    shown = "h/db?options=-c%20search_path%3Dmemory_plugin,public\n"
    assert run([], DATABASE_URL=url) == f"postgres://u:***@{shown}"
    assert run(["--show-password"], DATABASE_URL=url) == f"postgres://u:sEcret@{shown}"


def test_dsn_command_prefers_the_option_then_the_explicit_variable() -> None:
    both = {"DATABASE_URL": "postgres://platform/db", "MEMORY_PLUGIN_DATABASE_URL": "postgres://explicit/db"}
    assert run([], **both) == "postgres://explicit/db\n"
    assert run(["--database-url", "postgres://option/db"], **both).startswith("postgres://option/db?")
    assert run([], **{**both, "MEMORY_PLUGIN_DATABASE_URL": ""}).startswith("postgres://platform/db?")


def test_dsn_command_prints_facts_as_json() -> None:
    facts = json.loads(run(["--json"], DATABASE_URL="postgres://u:sEcret@h/db"))
    assert facts["url"].startswith("postgres://u:***@h/db?")
    assert (facts["source"], facts["explicit"], facts["search_path"]) == ("DATABASE_URL", False, "memory_plugin,public")


def test_dsn_command_says_so_when_no_url_is_set() -> None:
    with pytest.raises(BadSettingError, match="neither MEMORY_PLUGIN_DATABASE_URL nor DATABASE_URL is set"):
        run([])
