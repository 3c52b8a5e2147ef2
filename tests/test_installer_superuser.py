"""A superuser's commands in a database that somebody else owns run nothing that its owner wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from fixtures.databases import fresh_database
from fixtures.installing import DATA, connected, install, refusal, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api, stats
from memory_plugin.installer.errors import BadSettingError, ForeignSchemaError

LEDGER = (
    "create schema memory_plugin; create table memory_plugin.schema_migrations (name text primary key, "
    "sha256 text not null, program_version text not null, applied_at {time}, applied_by text {default}, "
    "adopted boolean not null default false)"
)
EARLIER = (
    "create schema memory_plugin; set search_path = memory_plugin, public; "
    + (DATA / "earlier_shape.sql").read_text()
    + "; "
)
# Where a tenant puts a function of his that a first installation would run.
BEFORE = {
    "trigger of the ledger": LEDGER.format(time="timestamptz default now()", default="")
    + "; create trigger t before insert on memory_plugin.schema_migrations "
    "for each row execute function mine.written()",
    "default of the ledger": LEDGER.format(time="timestamptz default now()", default="default mine.words()"),
    "type of the ledger": LEDGER.format(time="mine.timestamptz", default="")
    + "; insert into memory_plugin.schema_migrations values ('000_schema_bootstrap', '', '1', row(1), '', false)",
    "check": f"{EARLIER} alter table memory_records add check (mine.holds(content))",
    "operator of a check": f"{EARLIER} alter table memory_records add check (content operator(mine.===) kind)",
    "index": f"{EARLIER} create index on memory_records (id) where mine.holds(content)",
    "trigger of a child": f"{EARLIER} create table mine.child () inherits (memory_plugin.memory_records); "
    "create trigger t before update on mine.child for each row execute function mine.written()",
    "domain": f"{EARLIER} alter table memory_records add column more mine.word",
    "rule": f"{EARLIER} create rule r as on insert to memory_records do also select mine.words()",
}
# And a later one.
AFTER = {
    "trigger": "delete from memory_plugin.schema_migrations where name like '014%'; create trigger t before insert "
    "on memory_plugin.schema_migrations for each row execute function mine.written()",
    "view": "drop table memory_plugin.settings; create view memory_plugin.settings as "
    "select mine.words() as name, 'true'::jsonb as value",
}
THEIRS = """
create schema mine;
create type mine.timestamptz as (x int);
create function mine.written() returns trigger language plpgsql as $$ {0} return new; end $$;
create function mine.words() returns text language plpgsql as $$ {0} return ''; end $$;
create function mine.holds(text) returns boolean immutable language plpgsql as $$ {0} return true; end $$;
create function mine.same(text, text) returns boolean immutable language plpgsql as $$ {0} return true; end $$;
create function mine.moment(mine.timestamptz) returns text language plpgsql as $$ {0} return ''; end $$;
create operator mine.=== (leftarg = text, rightarg = text, function = mine.same);
create cast (mine.timestamptz as text) with function mine.moment(mine.timestamptz);
create domain mine.word as text check (mine.holds(value));
"""


@dataclass(frozen=True)
class Tenancy:
    """A database whose owner is no superuser."""

    owner: str
    url: str
    """As the superuser."""
    owners_url: str

    def act(self, statements: str) -> None:
        """Run statements as the owner."""
        rows(self.owners_url, statements)

    @property
    def taken_over(self) -> bool:
        """Tell whether the owner has become a superuser."""
        return bool(rows(self.url, f"select rolsuper from pg_roles where rolname = '{self.owner}'")[0][0])


@pytest.fixture
def tenancy(server: Server, new_role: Callable[..., str]) -> Iterator[Tenancy]:
    """Return a database with functions of its owner's that make him a superuser when a superuser runs them."""
    owner = new_role(password="x1")
    with fresh_database(server) as url:
        name = rows(url, "select current_database()")[0][0]
        server.execute(f'alter database "{name}" owner to "{owner}"')
        rows(url, "create extension vector")
        tenancy = Tenancy(owner, url, server.url(name, user=owner, password="x1"))
        tenancy.act(THEIRS.format(f"begin if current_user <> '{owner}' then alter role {owner} superuser; end if;"))
        yield tenancy


def test_the_owners_functions_take_over_when_a_superuser_runs_them(tenancy: Tenancy) -> None:
    rows(tenancy.url, "select mine.words()")
    assert tenancy.taken_over


@pytest.mark.parametrize("place", BEFORE)
def test_the_first_installation_runs_nothing_of_the_owners(tenancy: Tenancy, place: str) -> None:
    tenancy.act(BEFORE[place])
    assert isinstance(refusal(tenancy.url), ForeignSchemaError)
    assert isinstance(api.status(settings_for(tenancy.url)).problem, ForeignSchemaError)
    assert not tenancy.taken_over


@pytest.mark.parametrize("place", AFTER)
def test_a_later_installation_runs_nothing_of_the_owners(tenancy: Tenancy, place: str) -> None:
    install(tenancy.owners_url, plpython="off")
    tenancy.act(AFTER[place])
    error = refusal(tenancy.url, plpython="off")
    assert isinstance(error, ForeignSchemaError)
    assert "would run what another role wrote" in error.message
    assert not tenancy.taken_over


def test_a_store_as_its_owner_installed_it_is_brought_up_to_date_by_a_superuser(tenancy: Tenancy) -> None:
    install(tenancy.owners_url)
    tenancy.act("delete from memory_plugin.schema_migrations where name like '014%'")
    assert install(tenancy.url).applied == ("014_comments",)
    # With nothing left to migrate nothing is written, and what the owner hangs on his tables is his own affair.
    rows(
        tenancy.url,
        "create trigger t before insert on memory_plugin.memory_records for each row execute function mine.written()",
    )
    install(tenancy.url)
    assert not tenancy.taken_over


def test_a_trigger_whose_function_a_superuser_owns_is_in_nobodys_way(tenancy: Tenancy) -> None:
    tenancy.act(BEFORE["trigger of the ledger"])
    rows(tenancy.url, "alter function mine.written() owner to current_user")
    with connected(tenancy.url) as connection:
        connection.execute(
            "create or replace function mine.written() returns trigger language plpgsql as 'begin return new; end'"
        )
    assert "014_comments" in install(tenancy.url).applied


def test_status_counts_with_our_function_only(tenancy: Tenancy) -> None:
    install(tenancy.owners_url)
    assert stats.read(settings_for(tenancy.url)).facts is not None
    rows(
        tenancy.url,
        "create or replace function memory_plugin.stats() returns jsonb language plpgsql as "
        "$$ begin raise exception 'run as %', current_user; end $$",
    )
    assert stats.read(settings_for(tenancy.url)).problem.endswith("is not there, or is not ours")


@pytest.mark.parametrize("quote", ["'", "$function$", "\\"])
def test_a_name_of_the_owners_ends_no_literal_of_ours(tenancy: Tenancy, quote: str) -> None:
    """The store's text search configuration is what its tables say, and goes into the functions."""
    tenancy.act(
        f'create schema memory_plugin; set search_path = memory_plugin, public; create schema "s{quote}"; '
        f'create text search configuration "s{quote}"."x{quote}" (copy = pg_catalog.english)'
    )
    shape = (DATA / "earlier_shape.sql").read_text()
    literal = f'"s{quote}"."x{quote}"'.replace("'", "''").replace("\\", "\\\\")
    tenancy.act("set search_path = memory_plugin, public; " + shape.replace("'english'", f"e'{literal}'"))
    assert "text search configuration has" in refusal(tenancy.url).message


def test_a_schema_of_pgvector_whose_name_ends_a_literal_is_refused(tenancy: Tenancy) -> None:
    rows(tenancy.url, 'create schema "x\'y"; alter extension vector set schema "x\'y"')
    error = refusal(tenancy.url)
    assert isinstance(error, BadSettingError)
    assert "a quote, a $ or a backslash" in error.message
