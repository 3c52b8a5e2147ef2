"""What a boot starts, decided from the environment alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from memory_plugin.installer.boot_decision import decide, is_required, listen_addr

DATABASE = "postgresql://u@h/d"


@pytest.mark.parametrize(
    ("environ", "way", "required"),
    [
        ({"DATABASE_URL": DATABASE}, "bundled", False),
        ({"MEMORY_PLUGIN_DATABASE_URL": DATABASE}, "bundled", False),
        ({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": "http://127.0.0.1:9100"}, "bundled", False),
        ({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": "http://localhost:9100/"}, "bundled", False),
        ({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": "http://[::1]:9100"}, "bundled", False),
        ({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": "http://memory.internal:9100"}, "external", False),
        (
            {"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": "http://10.1.2.3", "MEMORY_PLUGIN_DISABLE": "1"},
            "external",
            False,
        ),
        ({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_DISABLE": "1"}, "none", False),
        ({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_DISABLE": "0"}, "bundled", False),
        (
            {"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": "http://127.0.0.1", "MEMORY_PLUGIN_DISABLE": "true"},
            "none",
            False,
        ),
        ({}, "none", False),
        ({"DATABASE_URL": "  "}, "none", False),
        ({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_REQUIRED": "1"}, "bundled", True),
        ({"DATABASE_URL": DATABASE, "MEMORY_V2_CUTOVER": "true"}, "bundled", True),
        ({"DATABASE_URL": DATABASE, "MEMORY_V2_CUTOVER": "false"}, "bundled", False),
    ],
)
def test_the_environment_decides_what_is_started(environ: Mapping[str, str], way: str, required: bool) -> None:
    assert (decide(environ).way, is_required(environ)) == (way, required)


LOOPBACK = {
    "http://127.0.0.1:9101": "127.0.0.1:9101",
    "http://127.8.9.10:9101/": "127.8.9.10:9101",
    "http://127.1:9101": "127.0.0.1:9101",
    "http://localhost:9101/v1": "localhost:9101",
    "http://LOCALHOST.:9101": "localhost:9101",
    "localhost:9101": "localhost:9101",
    "127.0.0.1:9101": "127.0.0.1:9101",
    "[::1]:9101": "[::1]:9101",
    "http://[::1]:9101": "[::1]:9101",
    "http://[0:0:0:0:0:0:0:1]:9101": "[::1]:9101",
    "http://[::ffff:127.0.0.1]:9101": "127.0.0.1:9101",
    "http://user@127.0.0.1:9101": "127.0.0.1:9101",
    "http://127.0.0.1": None,
    "localhost": None,
}
ELSEWHERE = (
    *("http://127.example.com:9100", "127.example.com", "http://localhost.example.com", "http://10.1.2.3:9100"),
    *("http://[fd00::1]:9100", "http://[::ffff:10.1.2.3]:9100", "memory:9100", "http://127.0.0.1@memory:9100"),
    *("http://[::1", "http://", "http://0.0.0.0:9100", "http://pl\udcfcgin.example:9100"),
)


@pytest.mark.parametrize("url", LOOPBACK)
def test_every_spelling_of_loopback_is_the_bundled_sidecar_and_says_where_it_listens(url: str) -> None:
    environ = {"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": url}
    assert decide(environ).way == "bundled"
    assert listen_addr(environ) == LOOPBACK[url]
    assert listen_addr({**environ, "MEMORY_PLUGIN_LISTEN_ADDR": ":9100"}) is None


@pytest.mark.parametrize("url", ELSEWHERE)
def test_whatever_is_not_loopback_is_an_external_plugin(url: str) -> None:
    assert decide({"DATABASE_URL": DATABASE, "MEMORY_PLUGIN_URL": url}).way == "external"
