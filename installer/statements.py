"""Split SQL text into its statements, as the server's lexer would see them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DOLLAR_TAG = re.compile(r"\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$")
# Nothing in it begins or ends anything.
_PLAIN = re.compile(r"[^;\s\-/'\"$]+")
_ESCAPED = re.compile(r"['\\]")
_SPACE = re.compile(r"\s+")
_TRANSACTION = re.compile(
    r"(begin|start\s+transaction|commit|end|rollback|abort|savepoint|prepare\s+transaction)\b", re.IGNORECASE
)


def split(text: str) -> tuple[str, ...]:
    """Return the statements of text, without their semicolons; a part that holds only comments is left out.

    Knows quotes, E'' strings, dollar quotes and nested comments; not `begin atomic` bodies, which have no place in a
    migration that runs statement by statement.
    """
    parts: list[str] = []
    start = 0
    meaningful = False
    for kind, begin, end in _tokens(text):
        if kind == "semicolon":
            if meaningful:
                parts.append(text[start:begin].strip())
            start, meaningful = end, False
        elif kind == "code":
            meaningful = True
    if meaningful:
        parts.append(text[start:].strip())
    return tuple(parts)


def without_comments(text: str) -> str:
    """Return text with every comment as one space; quoted text stays as it is."""
    kept: list[str] = []
    last = 0
    for kind, begin, end in _tokens(text):
        if kind == "comment":
            kept += (text[last:begin], " ")
            last = end
    return "".join((*kept, text[last:]))


def controls_transaction(text: str) -> str | None:
    """Return the first statement of text that begins or ends a transaction, or None."""
    for statement in split(text):
        match = _TRANSACTION.match(without_comments(statement).strip())
        if match:
            return match.group(1).lower()
    return None


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, begin, end) of every run: semicolon, comment, space or code (quoted text is code)."""
    at = 0
    while at < len(text):
        end, kind = at + 1, "code"
        char = text[at]
        if plain := _PLAIN.match(text, at):
            end = plain.end()
        elif space := _SPACE.match(text, at):
            end, kind = space.end(), "space"
        elif char == ";":
            kind = "semicolon"
        elif text.startswith("--", at):
            newline = text.find("\n", at)
            end, kind = (len(text) if newline < 0 else newline), "comment"
        elif text.startswith("/*", at):
            end, kind = _block_comment_end(text, at), "comment"
        elif char == "'":
            end = _quoted_end(text, at, "'", escapes=_is_escape_string(text, at))
        elif char == '"':
            end = _quoted_end(text, at, '"', escapes=False)
        elif char == "$" and not (at and (text[at - 1].isalnum() or text[at - 1] in "_$")):
            tag = _DOLLAR_TAG.match(text, at)
            if tag:
                close = text.find(tag.group(), tag.end())
                end = len(text) if close < 0 else close + len(tag.group())
        yield kind, at, end
        at = end


def _is_escape_string(text: str, at: int) -> bool:
    """Tell whether the quote at `at` opens an E'' string."""
    return at > 0 and text[at - 1] in "eE" and not (at > 1 and (text[at - 2].isalnum() or text[at - 2] in "_$"))


def _quoted_end(text: str, at: int, quote: str, *, escapes: bool) -> int:
    """Return the offset after the closing quote (a doubled one does not close)."""
    stops = _ESCAPED if escapes else re.compile(quote)
    at += 1
    while stop := stops.search(text, at):
        at = stop.start()
        if text[at] == quote and not text.startswith(quote * 2, at):
            return at + 1
        at += 2
    return len(text)


def _block_comment_end(text: str, at: int) -> int:
    """Return the offset after a comment, which may hold comments."""
    depth = 0
    while at < len(text):
        if text.startswith("/*", at):
            depth, at = depth + 1, at + 2
        elif text.startswith("*/", at):
            depth, at = depth - 1, at + 2
            if depth == 0:
                return at
        else:
            at += 1
    return len(text)
