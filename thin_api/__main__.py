"""Serve alone: `python -m memory_plugin.thin_api`, with the settings of the environment."""

import os
import sys

from memory_plugin.thin_api import server
from memory_plugin.thin_api.log import FORMATS, configure, log
from memory_plugin.thin_api.settings import EXIT_SETTING, SettingsError, from_env


def main() -> int:
    """Serve and return the exit status; 21 for a setting that cannot be used, a taken address too."""
    try:
        settings = from_env()
    except SettingsError as error:
        form = os.environ.get("MEMORY_PLUGIN_LOG")
        if form in FORMATS:
            configure(form)
        log("command_failed", level="error", message=str(error), exit_code=EXIT_SETTING)
        return EXIT_SETTING
    return server.run(settings)


if __name__ == "__main__":
    sys.exit(main())
