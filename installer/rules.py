"""The rules that several SQL files keep, each written once: the files hold them as @name@ or @name(argument, …)@.

Text takes the place of text before the SQL reaches a server, so that a rule costs no call. Landed migrations spell out
the same rules: they never change, and what a later rule changes takes a migration of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

NAMESPACE_NAME = "[a-z]+:[A-Za-z0-9_:.-]+"
"""A regular expression, without anchors, for the name of a namespace."""
NAMESPACE_LENGTH = 256
"""Characters in the name of a namespace, at most."""
KINDS = ("fact", "summary", "checkpoint")
SOURCES = ("agent", "runtime", "user")
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
"""A regular expression, without anchors and in lower case, for a UUID as clients write it; Postgres reads more."""
UNCHECKED_BYTES = 4_200
"""A text of so many bytes is surely quickly taken apart into words; a longer one is looked at first."""
TAIL_LENGTH = 19
"""Numbers that memory_vectors keeps after an embedding: 16 for the namespace, one for each kind."""
GRAPH_DIMENSIONS = 4000 - TAIL_LENGTH
"""Numbers in an embedding, at most, for it to have a tail and a graph: hnsw takes 4,000 of half precision."""
NEAR_DIMENSIONS = 1100
"""Numbers in an embedding, at most, for an index to hold the vectors of a namespace beside each other."""
SKETCH_DIMENSIONS = 200
"""Numbers in an embedding, at least, for memory_sketches to hold it: with fewer its vector is hardly longer."""


def _listed(words: Iterable[str]) -> str:
    """Return words as the literals of an SQL list."""
    return ", ".join(f"'{word}'" for word in words)


CONSTANTS = {
    "namespace_name": NAMESPACE_NAME,
    "namespace_length": str(NAMESPACE_LENGTH),
    "kinds": ",".join(KINDS),
    "sources": ",".join(SOURCES),
    # As the text of JSON holds them.
    "json_kinds": _listed(f'"{kind}"' for kind in KINDS),
    "json_sources": _listed(f'"{source}"' for source in SOURCES),
    "unchecked_bytes": str(UNCHECKED_BYTES),
    "tail_length": str(TAIL_LENGTH),
    "uuid": UUID,
    # RFC 3339 for to_char, of a time in UTC.
    "time_format": 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"',
    "graph_dimensions": str(GRAPH_DIMENSIONS),
    "near_dimensions": str(NEAR_DIMENSIONS),
    "sketch_dimensions": str(SKETCH_DIMENSIONS),
    # What a tail weighs beside the embedding, which weighs 1: the namespace, and each kind. A walk through the graph
    # is pulled towards its namespace by the product of both.
    "stored_tail": "{1,0.25}",
    "asked_tail": "{10,4}",
}

# The rank of one lexeme that occurs n times is (1 + 1/4 + … + 1/n²) / (π²/6): turned round, n.
_OCCURRENCES = "round(1 / (1.6449340668482264 * (1 - ts_rank(array[1, 1, 1, 1]::real[], {0}, {1}))) - 0.5)"
# Of two lexemes that no parser makes, joined by an `and` that is not met, the rank is 1e-20, which normalisation 2
# divides by the number of words.
_WORD_COUNT = "coalesce(round(1e-20 / nullif(ts_rank(array[1, 1, 1, 1]::real[], {0}, $t$= & ==$t$::tsquery, 2), 0)), 0)"
# An expression for whole words begins so; nothing else that is looked for does, as it has a letter.
_WHOLE_WORDS = r"starts_with({0}, $t$\y$t$)"
_PLAIN = (
    f"case when {_WHOLE_WORDS.format('{0}')} then regexp_replace(regexp_replace("
    r"substr({0}, 3), $t$\\y\Z$t$, $t$$t$), $t$\\(.)$t$, $t$\1$t$, $t$g$t$) else {0} end"
)
# An expression takes ten times as long as a look for the letters.
_HOLDS = f"strpos({{0}}, {{2}}) > 0 and (not {_WHOLE_WORDS.format('{1}')} or {{0}} ~ {{1}})"
# To count words takes longer than all else, and says nothing: they are those that stand everywhere.
_PIECES = (
    f"case when {_WHOLE_WORDS.format('{1}')} then 1 "
    "else (length({0}) - length(replace({0}, {1}, $t$$t$))) / length({1}) end"
)
_DEMANDED = (
    "({0}.required is null or {1} @@ {0}.required) and ({0}.present is null or {2} ~* all ({0}.present)) "
    "and ({0}.absent is null or not {2} ~* {0}.absent[1])"
)
_FILTERED = (
    "({0}.kinds is null or {1}.kind = any ({0}.kinds)) and ({0}.sources is null or {1}.source = any ({0}.sources)) "
    "and ({0}.created_after is null or {1}.created_at > {0}.created_after) "
    "and ({0}.created_before is null or {1}.created_at < {0}.created_before)"
)
# How far a sketch is from that of a question: what its signs and the question's disagree in, by the weight of each.
_SKETCHES_APART = " + ".join(
    f"{weight}({{0}} operator(@extschema:vector@.<~>) {{{place}}})"
    for place, weight in enumerate(("8 * ", "4 * ", "2 * ", ""), 1)
)

# None holds a quote, so that they fit into a statement that is written as a literal.
EXPRESSIONS = {
    # @occurrences(tsvector, tsquery of one lexeme)@
    "occurrences": _OCCURRENCES,
    # @word_count(tsvector)@
    "word_count": _WORD_COUNT,
    # @whole_words(piece)@: whether a piece of a query is an expression for whole words.
    "whole_words": _WHOLE_WORDS,
    # @plain(piece)@: the letters of a piece of a query.
    "plain": _PLAIN,
    # @holds(text, piece, its letters)@: whether a text holds a piece of a query.
    "holds": _HOLDS,
    # @pieces(text, piece)@: how often a text that holds it holds a piece of a query.
    "pieces": _PIECES,
    # @demanded(_lexical_plan, tsvector, content)@: holds what a query demands, and nothing of what it excludes.
    "demanded": _DEMANDED,
    # @filtered(_filter, row of memories)@: is of the kinds, sources and times that are asked for.
    "filtered": _FILTERED,
    # @sketches_apart(sketch, eight, four, two, one of the question)@
    "sketches_apart": _SKETCHES_APART,
}
