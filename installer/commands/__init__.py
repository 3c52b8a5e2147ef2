"""The subcommands of `memory-plugin`, one file each."""
