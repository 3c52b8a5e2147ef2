"""Serve alone: `python -m memory_plugin.thin_api`, with the settings of the environment."""

import sys

from memory_plugin.thin_api import server
from memory_plugin.thin_api.settings import SettingsError, from_env


def main() -> int:
    """Serve and return the exit status; 21 for a setting that cannot be used."""
    try:
        settings = from_env()
    except SettingsError as error:
        sys.stderr.write(f"memory-plugin: {error}\n")
        return 21
    return server.run(settings)


if __name__ == "__main__":
    sys.exit(main())
