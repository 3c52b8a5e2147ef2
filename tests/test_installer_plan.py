"""What the plan decides from facts alone, where a real server of that kind would cost too much to make."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.installing import settings_for
from memory_plugin.installer import plan, sources
from memory_plugin.installer.discover import Extension, Facts
from memory_plugin.installer.errors import InstallError
from memory_plugin.installer.version import number

FACTS = Facts(
    server_version=160014,
    server_version_text="16.14",
    database="app",
    role="app",
    superuser=True,
    in_recovery=False,
    encoding="UTF8",
    can_create_schema=True,
    schema_exists=False,
    schema_usable=False,
    can_create_in_schema=False,
    vector=Extension("vector", available="0.8.5", creatable=True),
    plpython=Extension("plpython3u"),
    tables=(),
    functions=(),
    plpython_functions=(),
    types=(),
    ledger=None,
    dimensions=None,
    text_search_config=None,
    text_search_configs=("english", "simple"),
    invalid_indexes=(),
)
SETTINGS = settings_for("postgresql://app@localhost/app")


def refused(facts: Facts) -> InstallError:
    """Plan where that must fail, and return the error."""
    with pytest.raises(InstallError) as caught:
        plan.make(facts, sources.load(), SETTINGS)
    return caught.value


def test_an_empty_database_gets_everything() -> None:
    made = plan.make(FACTS, sources.load(), SETTINGS)
    assert made.run == sources.load().migrations
    assert made.adopt == ()
    assert made.create_vector
    assert (made.vector_schema, made.dimensions, made.text_search_config) == ("memory_plugin", 1536, "english")


def test_a_server_that_is_too_old_is_refused() -> None:
    error = refused(replace(FACTS, server_version=140011, server_version_text="14.11"))
    assert (error.exit_code, "PostgreSQL 14.11" in error.message, "15 or newer" in error.hint) == (21, True, True)


def test_a_standby_is_refused() -> None:
    error = refused(replace(FACTS, in_recovery=True))
    assert (error.exit_code, "standby" in error.message) == (21, True)


def test_a_role_that_the_catalogue_says_may_not_create_the_extension_is_warned_and_not_refused() -> None:
    vector = Extension("vector", available="0.8.5", creatable=False)
    assert (
        "may not create the extension" in plan.make(replace(FACTS, vector=vector), sources.load(), SETTINGS).warnings[0]
    )


def test_an_old_pgvector_with_nothing_newer_on_the_server_names_the_package() -> None:
    vector = Extension("vector", available="0.5.1", installed="0.5.1", schema="public", usable=True)
    error = refused(replace(FACTS, vector=vector))
    assert error.exit_code == 13
    assert "install a newer postgresql-16-pgvector" in error.hint


def test_a_database_of_another_encoding_is_refused() -> None:
    error = refused(replace(FACTS, encoding="LATIN1"))
    assert (error.exit_code, "encoding LATIN1" in error.message, "UTF8" in error.hint) == (21, True, True)


@pytest.mark.parametrize(
    ("vector", "code", "words"),
    [
        (Extension("vector"), 12, "postgresql-16-pgvector"),
        (Extension("vector", available="0.6.2", creatable=True), 13, "0.7"),
        (Extension("vector", available="0.8.5", installed="0.6.2", schema="public", usable=True), 13, "run: alter"),
        (Extension("vector", available="0.8.5", installed="0.8.5", schema="ext"), 22, "grant usage on schema ext"),
    ],
)
def test_a_pgvector_that_cannot_be_used_is_refused_with_what_helps(vector: Extension, code: int, words: str) -> None:
    error = refused(replace(FACTS, vector=vector))
    assert error.exit_code == code
    assert words in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("0.7.4", ["no iterative index scan", "upgrade to 0.8.4"]),
        ("0.8.0", ["upgrade to 0.8.4"]),
        ("0.8.3", ["upgrade to 0.8.4"]),
        ("0.8.4", []),
        ("0.8.10", []),
    ],
)
def test_what_a_pgvector_gets_wrong_is_told_up_to_the_release_that_mends_it(version: str, words: list[str]) -> None:
    told = plan.vector_warnings(version)
    assert len(told) == len(words)
    assert all(word in warning for word, warning in zip(words, told, strict=True))


def test_a_schema_is_refused_where_it_may_not_be_created_or_filled() -> None:
    there = replace(FACTS, schema_exists=True, schema_usable=True, can_create_in_schema=True)
    plan.make(there, sources.load(), SETTINGS)
    for lacking in (replace(there, schema_usable=False), replace(there, can_create_in_schema=False)):
        assert refused(lacking).hint == 'have a superuser run: alter schema memory_plugin owner to "app"'
    with_types = replace(there, types=("color",))
    assert "things that are not ours and no ledger: color" in refused(with_types).message


def test_a_statement_that_a_hint_gives_holds_a_role_with_a_quote_in_its_name() -> None:
    error = refused(replace(FACTS, role='d"Arc', schema_exists=True, can_create_in_schema=False))
    assert error.hint.endswith('owner to "d""Arc"')


def test_tables_of_an_earlier_boot_are_counted_as_far_as_they_were_looked_at() -> None:
    assert plan.public_warnings([], 10) == ()
    (told,) = plan.public_warnings([("a", None), ("b", 10), ("c", 11)], 10)
    assert "left public.a (rows unknown) and public.b (10 rows) and public.c (more than 10 rows)" in told


@pytest.mark.parametrize(
    ("earlier", "later"), [("0.8.0", "0.8.4"), ("0.8.9", "0.8.10"), ("", "0.0.1"), ("1.0", "1.0.1"), ("0.9rc1", "1")]
)
def test_versions_compare_as_numbers(earlier: str, later: str) -> None:
    assert number(earlier) < number(later)
