"""What the sidecar makes of its environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from memory_plugin.thin_api.settings import Settings, SettingsError, conninfo, described, from_env, listen_address

ADDED = {
    "client_encoding": "UTF8",
    "fallback_application_name": "memory-plugin",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
HOME = {"host": "h", "dbname": "d", "user": "u"}


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("postgres://u@h/d", {}),
        ("postgresql://u@h/d?sslmode=disable", {"sslmode": "disable"}),
        ("postgres://u@h/d?search_path=memory_plugin,public", {}),
        ("postgres://u@h/d?search_path=a&sslmode=disable", {"sslmode": "disable"}),
        ("postgres://u@h/d?sslmode=disable&search_path=a", {"sslmode": "disable"}),
        ("postgres://u@h/d?options=-csearch_path%3Dmemory_plugin,public", {}),
        ("postgres://u@h/d?options=-c%20search_path%3Dmemory_plugin%2Cpublic", {}),
        ("postgres://u@h/d?options=--search_path%3Da%20-c%20jit%3Doff", {"options": "-c jit=off"}),
        ("postgres://u@h/d?options=-c%20jit%3Doff%20-c%20search_path%3Da", {"options": "-c jit=off"}),
        ("host=h dbname=d user=u options='-c search_path=a\\\\ ,b -c jit=off'", {"options": "-c jit=off"}),
        ("postgres://u@h/d?options=-c%20statement_timeout%3D5s", {"options": "-c statement_timeout=5s"}),
        ("postgres://u:p%40%3F%26@h/d?search_path=x", {"password": "p@?&"}),
        ("postgres://u@h/d?application_name=mine", {"application_name": "mine"}),
        ("postgres://u@h/d?keepalives_idle=60", {"keepalives_idle": "60"}),
    ],
)
def test_the_search_path_is_dropped_and_nothing_else(given: str, left: dict[str, str]) -> None:
    assert conninfo_to_dict(conninfo(given)) == {**HOME, **ADDED, **left}


def test_several_hosts_and_a_socket_are_kept() -> None:
    assert conninfo_to_dict(conninfo("postgres://u@a:1,[::1]:2/d"))["host"] == "a,::1"
    assert conninfo_to_dict(conninfo("postgres:///d?host=/run/pg"))["host"] == "/run/pg"


@pytest.mark.parametrize(
    "given",
    [
        *("postgres://u:s3cret@h/d?nonsense=1", "host=h s3cret", "postgres://u:s3cret@[h/d"),
        # libpq would look for the host s3cret@h, and for the database s3cret@h/d.
        *("postgres://u:pa@s3cret@h/d", "postgres://u:pa/s3cret@h/d"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(given: str) -> None:
    with pytest.raises(SettingsError) as caught:
        conninfo(given)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        (":9100", ("", 9100)),
        ("[::1]:9100", ("::1", 9100)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_an_address_to_listen_on(text: str, address: tuple[str, int]) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize("text", ["9100", "", ":", "h:", "h:0", "h:65536", "h:-1", "::1:9100", "h:9100/x", "[::1:9100"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(SettingsError, match="MEMORY_PLUGIN_LISTEN_ADDR"):
        listen_address(text)


def test_the_environment_is_read_in_the_order_of_its_names() -> None:
    environ = {"DATABASE_URL": "dbname=c"}
    assert "dbname=c" in from_env(environ).conninfo
    environ["MEMORY_PLUGIN_DATABASE_URL"] = "dbname=b"
    assert "dbname=b" in from_env(environ).conninfo
    environ["MEMORY_PLUGIN_CONNINFO"] = "dbname=a"
    found = from_env(environ)
    assert "dbname=a" in found.conninfo
    assert (found.host, found.port, found.max_body, found.pool_size) == ("127.0.0.1", 9100, 1024 * 1024, 8)


# What reads it, its default, and its bounds.
NUMBERS = {
    "MEMORY_PLUGIN_MAX_BODY": ("max_body", 1024 * 1024, 1, 256 * 1024 * 1024),
    "MEMORY_PLUGIN_POOL_SIZE": ("pool_size", 8, 1, 32),
    "MEMORY_PLUGIN_SWEEP_SECONDS": ("sweep_seconds", 30, 0, 86400),
    "MEMORY_PLUGIN_EMBED_SECONDS": ("embed_seconds", 5, 0, 86400),
}


def test_every_setting_is_read_and_an_empty_one_is_as_if_absent() -> None:
    given = {
        "MEMORY_PLUGIN_DATABASE_URL": "dbname=x",
        "MEMORY_PLUGIN_LISTEN_ADDR": "h:1",
        "MEMORY_PLUGIN_LOG": "json",
        "MEMORY_PLUGIN_TOKEN": "t" * 16,
        "MEMORY_PLUGIN_RUN_ID": "a1",
        **{name: str(most) for name, (_, _, _, most) in NUMBERS.items()},
    }
    found = from_env(given)
    assert (found.host, found.port, found.log_format, found.token, found.run) == ("h", 1, "json", "t" * 16, "a1")
    assert {name: getattr(found, field) for name, (field, *_) in NUMBERS.items()} == {
        name: most for name, (_, _, _, most) in NUMBERS.items()
    }
    absent = {"MEMORY_PLUGIN_DATABASE_URL": "dbname=x"}
    assert from_env({**dict.fromkeys(given, ""), **absent}) == from_env(absent)


def test_without_a_database_the_variables_that_name_one_are_named() -> None:
    with pytest.raises(SettingsError, match="set MEMORY_PLUGIN_DATABASE_URL or DATABASE_URL"):
        from_env({"DATABASE_URL": ""})


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_lies_between_its_bounds(name: str) -> None:
    field, default, least, most = NUMBERS[name]
    base = {"DATABASE_URL": "dbname=x"}
    for given, number in (("", default), (str(least), least), (str(most), most)):
        assert getattr(from_env({**base, name: given}), field) == number
    for given in (str(least - 1), str(most + 1)):
        with pytest.raises(SettingsError, match=f"{name} must be a whole number from {least} to {most}"):
            from_env({**base, name: given})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["-1", "1.5", "x", "1e3", "9" * 12, "9" * 13])
def test_a_number_out_of_range_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        from_env({"DATABASE_URL": "dbname=x", name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("LOG", "xml"), ("TOKEN", "t" * 15), ("TOKEN", "t" * 513), ("TOKEN", "t" * 16 + " "), ("RUN_ID", "a" * 65)]
    + [("RUN_ID", "a-b")],
)
def test_a_word_that_breaks_its_rule_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MEMORY_PLUGIN_{name} must be"):
        from_env({"DATABASE_URL": "dbname=x", f"MEMORY_PLUGIN_{name}": value})


def test_neither_the_settings_nor_their_description_show_a_password() -> None:
    settings = Settings(conninfo("postgres://u:s3cret@h:5/d"))
    assert "s3cret" not in repr(settings)
    assert described(settings) == "h:5/d"


@pytest.mark.parametrize("given", ["service=tenant", "postgresql:///?service=tenant"])
def test_a_database_that_a_service_file_names_is_described_by_its_service(given: str) -> None:
    assert described(Settings(conninfo(given))) == "service tenant"


def test_thin_api_imports_nothing_of_the_installer() -> None:
    import memory_plugin.thin_api

    sources = sorted(Path(memory_plugin.thin_api.__path__[0]).glob("*.py"))
    assert len(sources) > 8
    assert [source.name for source in sources if "memory_plugin.installer" in source.read_text()] == []
