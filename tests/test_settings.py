"""What operators set: read, checked, and refused in one line that names the variable and the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_plugin.installer import errors
from memory_plugin.installer.errors import BadSettingError, InstallError
from memory_plugin.installer.settings import Settings, from_env, split_listen_addr
from memory_plugin.thin_api import settings as thin


def test_nothing_set_gives_the_defaults() -> None:
    assert from_env({}) == Settings()
    assert (Settings().listen_addr, Settings().plpython, Settings().dimensions) == ("127.0.0.1:9100", "auto", None)


def test_every_variable_is_read(tmp_path: Path) -> None:
    settings = from_env(
        {
            "DATABASE_URL": "postgres://platform/db",
            "MEMORY_PLUGIN_DATABASE_URL": "postgres://explicit/db",
            "MEMORY_PLUGIN_LISTEN_ADDR": ":9200",
            "MEMORY_PLUGIN_SKIP_MIGRATE": "1",
            "MEMORY_PLUGIN_MIGRATIONS_DIR": str(tmp_path),
            "MEMORY_PLUGIN_DIMENSIONS": " 384 ",
            "MEMORY_PLUGIN_PLPYTHON": "require",
            "MEMORY_PLUGIN_TEXT_SEARCH_CONFIG": "public.german",
            "MEMORY_PLUGIN_LOCK_TIMEOUT": "1.5",
        }
    )
    assert settings == Settings(
        database_url="postgres://explicit/db",
        explicit=True,
        url_source="MEMORY_PLUGIN_DATABASE_URL",
        listen_addr=":9200",
        skip_migrate=True,
        migrations_dir=tmp_path,
        dimensions=384,
        plpython="require",
        text_search_config="public.german",
        lock_timeout_s=1.5,
    )


def test_options_go_before_variables_and_none_counts_as_not_given() -> None:
    environ = {"MEMORY_PLUGIN_DIMENSIONS": "384", "MEMORY_PLUGIN_LISTEN_ADDR": ":1"}
    settings = from_env(environ, dimensions="768", listen_addr=None, skip_migrate=False)
    assert (settings.dimensions, settings.listen_addr, settings.skip_migrate) == (768, ":1", False)
    with pytest.raises(TypeError, match="no such setting: dimension"):
        from_env({}, dimension=3)


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("MEMORY_PLUGIN_DIMENSIONS", "0", "from 1 to 4000"),
        ("MEMORY_PLUGIN_DIMENSIONS", "4001", "from 1 to 4000"),
        ("MEMORY_PLUGIN_DIMENSIONS", "1.5", "whole number"),
        ("MEMORY_PLUGIN_DIMENSIONS", "٣", "whole number"),
        ("MEMORY_PLUGIN_LISTEN_ADDR", "9100", "HOST:PORT"),
        ("MEMORY_PLUGIN_LISTEN_ADDR", "h:65536", "1 to 65535"),
        ("MEMORY_PLUGIN_LISTEN_ADDR", "::1:9100", "brackets"),
        ("MEMORY_PLUGIN_SKIP_MIGRATE", "perhaps", "1 or 0"),
        ("MEMORY_PLUGIN_MIGRATIONS_DIR", "/nonexistent/folder", "folder that exists"),
        ("MEMORY_PLUGIN_MIGRATIONS_DIR", "/" + 300 * "x", "folder that can be read"),
        ("MEMORY_PLUGIN_MIGRATIONS_DIR", "~nobody-of-this-name/x", "whose ~ is known"),
        ("MEMORY_PLUGIN_PLPYTHON", "maybe", "auto, require or off"),
        ("MEMORY_PLUGIN_TEXT_SEARCH_CONFIG", "english'; drop", "text search configuration"),
        ("MEMORY_PLUGIN_TEXT_SEARCH_CONFIG", "english\n", None),
        ("MEMORY_PLUGIN_LOCK_TIMEOUT", "0", "above 0"),
        ("MEMORY_PLUGIN_LOCK_TIMEOUT", "-1", "above 0"),
        ("MEMORY_PLUGIN_LOCK_TIMEOUT", "9999999", "below 1000000"),
        ("DATABASE_URL", "http://h/db", "postgres://"),
    ],
)
def test_bad_value_is_refused_by_variable_and_rule(variable: str, value: str, rule: str | None) -> None:
    if rule is None:
        # White space around a value is not part of it.
        assert from_env({variable: value}).text_search_config == value.strip()
        return
    with pytest.raises(BadSettingError) as refusal:
        from_env({variable: value})
    assert variable in refusal.value.line
    assert rule in refusal.value.line
    assert "\n" not in refusal.value.line
    assert refusal.value.exit_code == 21


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--lock-timeout", "lock_timeout_s", "0"),
        ("--listen", "listen_addr", "bad"),
        ("--dimensions", "dimensions", "0"),
    ],
)
def test_bad_value_of_an_option_is_refused_by_its_name(option: str, field: str, value: str) -> None:
    with pytest.raises(BadSettingError) as refusal:
        from_env({}, **{field: value})
    assert f": {option} must be " in refusal.value.line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        (":9100", ("0.0.0.0", 9100)),
        ("[::1]:1", ("::1", 1)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_listen_address_is_split(text: str, expected: tuple[str, int]) -> None:
    assert split_listen_addr(text) == expected


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:9100", ":1", "[::1]:1", "h:65535", "9100", "h:0", "::1:1", "[]:1", "[h:1", "h]:1", "[a]b]:1", "a[b:1",
     "h h:1", "[h h]:1", "u@h:1", "http://h:1", "[u@h]:1", "h:000001", "h:٣"],
)  # fmt: skip
def test_what_the_sidecar_takes_for_an_address_the_installer_takes_too(text: str) -> None:
    environ = {"DATABASE_URL": "postgres:///d", "MEMORY_PLUGIN_LISTEN_ADDR": text}
    try:
        sidecar = thin.from_env(environ)
    except thin.SettingsError:
        with pytest.raises(BadSettingError, match="MEMORY_PLUGIN_LISTEN_ADDR must be HOST:PORT"):
            from_env(environ)
        with pytest.raises(ValueError, match="HOST:PORT"):
            split_listen_addr(text)
    else:
        assert split_listen_addr(from_env(environ).listen_addr) == (sidecar.host or "0.0.0.0", sidecar.port)


def test_no_url_is_an_error_only_where_one_is_needed() -> None:
    with pytest.raises(BadSettingError, match="DATABASE_URL is set"):
        _ = from_env({"DATABASE_URL": " "}).conninfo


def test_every_failure_has_an_exit_code_of_its_own_and_says_what_to_do() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InstallError)]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert {1, 2, *range(10, 25)} <= set(codes)
    for kind in kinds:
        line = kind("the\n  particulars").line
        assert line.startswith("memory-plugin: ")
        assert ": the particulars -- " in line
        assert not line.endswith("-- ")
