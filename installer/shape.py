"""The shape of the two tables every store begins with, as earlier programs made it; no I/O."""

from __future__ import annotations

from memory_plugin.installer.discover import Facts, Table

NAMESPACE_COLUMNS = {
    "name": "text",
    "kind": "text",
    "expires_at": "timestamptz",
    "metadata": "jsonb",
    "created_at": "timestamptz",
}
RECORD_COLUMNS = {
    "id": "uuid",
    "namespace": "text",
    "content": "text",
    "kind": "text",
    "source": "text",
    "expires_at": "timestamptz",
    "propagation": "jsonb",
    "pin": "bool",
    "embedding": "vector",
    "content_tsv": "tsvector",
    "created_at": "timestamptz",
}
SHAPE = {"memory_namespaces": NAMESPACE_COLUMNS, "memory_records": RECORD_COLUMNS}
_KEYS = {"memory_namespaces": (("name",),), "memory_records": (("id",), ("namespace", "id"))}


def missing_from_shape(facts: Facts) -> tuple[str, ...]:
    """Return what the tables that are there lack of the shape, in words; a table that is absent lacks nothing."""
    return tuple(word for name in SHAPE if (table := facts.table(name)) is not None for word in _missing(table))


def column_differences(table: Table) -> tuple[str, ...]:
    """Return the columns of the shape that a table lacks or has with another type."""
    words: list[str] = []
    for name, type_name in SHAPE[table.name].items():
        column = table.column(name)
        if column is None:
            words.append(f"column {table.name}.{name}")
        elif column.type != type_name:
            words.append(f"{table.name}.{name} as {type_name} (it is {column.type})")
    return tuple(words)


def _missing(table: Table) -> list[str]:
    """Return what one table lacks."""
    words = list(column_differences(table))
    if table.primary_key not in _KEYS[table.name]:
        words.append(f"a primary key on {table.name} ({', '.join(_KEYS[table.name][0])})")
    if table.name == "memory_records":
        generated = table.column("content_tsv")
        if generated is not None and generated.generated is None:
            words.append("content_tsv as a generated column")
        if "memory_plugin.memory_namespaces" not in table.references:
            words.append("a foreign key from memory_records to memory_namespaces")
    return words
