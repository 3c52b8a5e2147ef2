"""A server for a bench, given by URL or of its own, and databases in it that go when the bench ends."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from memory_plugin.installer import api, embedded, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fixtures.cluster import DURABLE, cluster
from fixtures.full_server import choose, full_server

PROGRAM = (sys.executable, "-c", "from memory_plugin.installer.cli import main; main()")
# What an operator would set; the packaged defaults are for a laptop of long ago. Checkpoints would fall into timings.
TUNING = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "autovacuum": "off"}


@contextmanager
def server(url: str | None = None) -> Iterator[str]:
    """Yield the URL of a maintenance database: the given one, or one of an embedded server that lives as long."""
    if url:
        yield url
        return
    # Not TMPDIR, which may be root's alone: the server's account must be able to enter.
    home = Path(tempfile.mkdtemp(prefix="mp-bench-", dir="/tmp"))
    home.chmod(0o755)
    try:
        with embedded.start(home, state_dir=home) as first, psycopg.connect(first.url, autocommit=True) as conn:
            for name, value in TUNING.items():
                conn.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        with embedded.start(home, state_dir=home) as own:
            yield own.url
    finally:
        shutil.rmtree(home)


def without_plpython(url: str | None) -> str:
    """Say why there is no server with plpython3u, the given one or one of this machine; empty when there is."""
    if url is None:
        choice = choose()
        return f"there is no server with plpython3u: {choice.where}" if choice.way == "none" else ""
    with psycopg.connect(url) as conn:
        found = conn.execute("select 1 from pg_available_extensions where name = 'plpython3u'").fetchone()
    return "" if found else "the server has no plpython3u"


@contextmanager
def full(url: str | None = None) -> Iterator[str]:
    """Yield the URL of a maintenance database of a server with plpython3u; LookupError when there is none."""
    if why := without_plpython(url):
        raise LookupError(why)
    if url:
        yield url
    elif choose().way == "packages":
        # Minutes of writes, so autovacuum is part of what is measured.
        with cluster("bench", Path(choose().where), {**DURABLE, **TUNING, "autovacuum": "on"}) as own:
            yield own.url()
    else:
        with full_server(choose()) as made:
            yield made.url()


@contextmanager
def sidecar(url: str, **environment: str) -> Iterator[httpx.Client]:
    """Serve a store as it is deployed; yield a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    given = {"MEMORY_PLUGIN_DATABASE_URL": url, "MEMORY_PLUGIN_LISTEN_ADDR": address, **environment}
    environ, nowhere = {**os.environ, **given}, subprocess.DEVNULL
    process = subprocess.Popen([*PROGRAM, "serve"], env=environ, stdout=nowhere, stderr=nowhere)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10, trust_env=False) as client:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client.get("/v1/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait()


def embedded_all(conn: psycopg.Connection[Any], seconds: float) -> float:
    """Wait until the store has fetched every embedding; return how long it took. What it cannot fetch is an error."""
    began = time.monotonic()
    while True:
        row = conn.execute("select memory_plugin.embedding_status()").fetchone()
        told: dict[str, Any] = (row and row[0]) or {"pending": None, "failed": None, "problem": "no provider"}
        took = time.monotonic() - began
        if told["pending"] == told["failed"] == 0:
            return took
        if told["failed"] or told["pending"] is None or took > seconds:
            raise RuntimeError(f"not embedded after {took:.0f} s: {told}")
        time.sleep(0.05)


@contextmanager
def database(server_url: str, *, keep: bool = False) -> Iterator[str]:
    """Create a database with pgvector in `public`, where other programs expect it; yield its URL, then drop it."""
    name = f"mp_bench_{secrets.token_hex(4)}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        try:
            url = with_dbname(server_url, name)
            with psycopg.connect(url, autocommit=True) as own:
                own.execute("create extension vector with schema public")
            yield url
        finally:
            if not keep:
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def store(server_url: str, dimensions: int, *, keep: bool = False) -> Iterator[str]:
    """Create a database with the store installed; yield its URL, then drop it."""
    with database(server_url, keep=keep) as url:
        api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": url}, dimensions=str(dimensions)))
        yield url


@contextmanager
def copy(server_url: str, url: str) -> Iterator[str]:
    """Create a database with all that another holds, to which nobody may be connected; yield its URL, then drop it."""
    name = f"mp_bench_{secrets.token_hex(4)}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        _copy(conn, url, name)
        try:
            yield with_dbname(server_url, name)
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def kept(
    server_url: str, name: str, dimensions: int, fill: Callable[[str], None], change: Callable[[str], None]
) -> tuple[str, str]:
    """Return the URLs of a filled store that stays and of its changed copy; make them where they are not there yet."""
    ours, other = with_dbname(server_url, name), with_dbname(server_url, f"{name}_plain")
    with psycopg.connect(server_url, autocommit=True) as conn:
        if not conn.execute("select 1 from pg_database where datname = %s", [f"{name}_plain"]).fetchone():
            conn.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))
            with store(server_url, dimensions) as made:
                fill(made)
                _copy(conn, made, name)
            _copy(conn, ours, f"{name}_new")
            change(with_dbname(server_url, f"{name}_new"))
            conn.execute(
                sql.SQL("alter database {} rename to {}").format(*map(sql.Identifier, (f"{name}_new", f"{name}_plain")))
            )
    api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": ours}))
    return ours, other


def _copy(conn: psycopg.Connection[Any], url: str, name: str) -> None:
    """Copy a database."""
    source = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
    conn.execute(sql.SQL("create database {} template {} strategy file_copy").format(sql.Identifier(name), source))


def warm(url: str) -> None:
    """Have the server read every file of a database once, so that no question waits for the disk; superusers may."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "select count(pg_read_binary_file(f.path, at, 16777216)) from ("
            "    select format('base/%s/%s', d.oid, n) as path from pg_database as d, "
            "    lateral pg_ls_dir('base/' || d.oid) as n where d.datname = current_database()"
            ") as f, generate_series(0, (pg_stat_file(f.path)).size, 16777216) as at"
        )


def with_dbname(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    parts = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    user, password = quote(parts.pop("user", "postgres"), safe=""), parts.pop("password", None)
    secret = f":{quote(password, safe='')}" if password else ""
    parts.pop("dbname", None)
    return f"postgresql://{user}{secret}@/{quote(name, safe='')}?{urlencode(parts)}"


def described(url: str) -> dict[str, str | float]:
    """Say what measured: versions, the machine's size and how busy it is."""
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "select split_part(current_setting('server_version'), ' ', 1), current_setting('shared_buffers'), "
            # Of what databases of the server get: the maintenance database need not have it.
            "(select default_version from pg_available_extensions where name = 'vector')"
        ).fetchone()
    postgres, buffers, vector = row or ("?", "?", "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return {
        "postgres": postgres,
        "pgvector": str(vector),
        "shared_buffers": buffers,
        "cores": os.cpu_count() or 0,
        "memory_gib": memory,
        # Of the last minute: much more than the bench itself makes means that others used the machine.
        "load": round(os.getloadavg()[0], 1),
    }
