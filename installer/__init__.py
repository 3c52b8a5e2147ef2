"""Bring a database to the wanted state: discover, plan, apply, verify."""
