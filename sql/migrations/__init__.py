"""Changes of state, NNN_name.up.sql / NNN_name.down.sql, each run once, in order."""
