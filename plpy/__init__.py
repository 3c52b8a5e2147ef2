"""PL/Python sources: NAME.py (plain functions) + NAME.sql (the declaration)."""
