"""The options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from memory_plugin.installer.settings import PLPYTHON_CHOICES, Settings, from_env

F = TypeVar("F", bound=Callable[..., Any])


def database(function: F) -> F:
    """Add --database-url."""
    return click.option(
        "--database-url", metavar="URL", help="Use this database; else MEMORY_PLUGIN_DATABASE_URL, else DATABASE_URL."
    )(function)


def as_json(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def wishes(function: F) -> F:
    """Add the options that say what the store should be."""
    for option in reversed(
        (
            click.option(
                "--dimensions",
                metavar="N",
                help="Embedding dimensions of a fresh store, up to 4000 [MEMORY_PLUGIN_DIMENSIONS; 1536].",
            ),
            click.option(
                "--text-search-config",
                metavar="NAME",
                help="Text search configuration of a fresh store [MEMORY_PLUGIN_TEXT_SEARCH_CONFIG; english].",
            ),
            click.option(
                "--plpython",
                type=click.Choice(PLPYTHON_CHOICES),
                help="Whether to apply the PL/Python functions [MEMORY_PLUGIN_PLPYTHON; auto].",
            ),
            click.option(
                "--migrations-dir",
                metavar="DIR",
                help="Folder of your own migrations, run after ours [MEMORY_PLUGIN_MIGRATIONS_DIR].",
            ),
            click.option(
                "--lock-timeout",
                "lock_timeout_s",
                metavar="SECONDS",
                help="Longest wait for one lock, in seconds [MEMORY_PLUGIN_LOCK_TIMEOUT; 25].",
            ),
        )
    ):
        function = option(function)
    return function


def settings(**given: Any) -> Settings:
    """Return the settings of the environment with the options of a command over them."""
    return from_env(os.environ, **given)
