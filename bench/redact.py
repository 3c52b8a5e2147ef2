"""Time redaction of texts of the largest size: ordinary ones, and ones made to be slow.

python bench/redact.py [--size BYTES] [--database-url URL] [--rounds N] [--most MS]

Prints the best of the rounds in milliseconds, slowest first: processor time in this process, and, with a URL, that of
the session in that database, the text's way in included; time on the clock where its processor time cannot be read, for
it is on another machine. The first call of a session also builds the patterns it needs ("first call", of a short text).
Exits 1 when a text takes longer than --most, 100 ms.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from memory_plugin.plpy.redact import redact

PROSE = "The quick brown agent remembered that the password is stored in the vault, and that token rings glow. "
LOG = '2026-01-02T03:04:05Z INFO request id=550e8400-e29b-41d4-a716-446655440000 {"tokens": 5, "key": "k1"} ok\n'
NEEDLES = (
    "_eyJ sk-ant- sk- AKIA ASIA ABSK AIza AQ.Ab ya29. GOCSPX- Q~ ?sig= gl xox xapp- hooks.slack.com/ /webhooks/ :AA "
    "pypi-Ag SG. SK dapi hv .atlasv1. TT3 dp. dckr_ tskey- sb_secret_ figd_ HRKU- pat LS0tLS1CRUdJTi :// curl machine "
    " -- authorization bearer password passphrase pwd pass pw secret token api_key identified by -----BEGIN PRIVATE KEY"
)
# What the table redaction_patterns makes of four patterns of an operator's, one of them as slow as they can be.
OWN = [
    ("employee", "EMP-", 0, "EMP-[0-9]{6}"),
    ("number", "-", 3, "[0-9]{3}-[0-9]{2}-[0-9]{4}"),
    ("acme_key", "acme_", 0, "acme_[A-Za-z0-9]{1,}"),
    ("slow", "ab", 0, "ab" + "".join(rf"(?=([a-z]{{0,255}}))(?:\{place})" for place in (1, 2, 3)) + "X"),
]
FAKE_TOKEN = "gh" + "p_" + "aB3" * 12
SLOW = (
    *"a - _ key key= ikey= token= token=a password pwd=a; pw= secret_key: pass sk- SK pat eyJ eyJaaaaaaaa.".split(),
    *("://a:b@", "://", "bearer ", "authorization: ", "authorization: bearer a", "-----BEGIN PRIVATE KEY-----"),
    *("token='" + "a" * 600 + "\n", "password='a " + "b " * 8, "password=a.b.c.d.e", "password=" + "a," * 40),
    *(
        "hp_" + "a" * 17,
        "ghp_" + "a" * 16 + " ",
        FAKE_TOKEN + " ",
        "password=hunter2x ",
        "curl -u a:b ",
        " --passwd\t",
        "--password ",
        "--token '",
        "--token " + "a" * 49 + " ",
        "EMP-12345 ",
        "EMP-123456 ",
        "078-05-1120 ",
        "ab",
        "[redacted:employee]EMP-1",
        "é",
        "日本",
        "😀",
    ),
)


def cases(size: int) -> dict[str, str]:
    """Return the texts by name, each of about so many bytes."""
    texts = {repr(piece[:30]): piece for piece in SLOW}
    texts |= {"prose": PROSE, "a log": LOG, "all needles": NEEDLES}
    filled = {name: piece * (size // len(piece.encode())) for name, piece in texts.items()}
    for piece in ("_", "ikey=", FAKE_TOKEN + " ", "pwd=a;"):
        filled[f"all needles, then {piece[:20]!r}"] = NEEDLES + piece * ((size - len(NEEDLES)) // len(piece))
    words = [*NEEDLES.split(), "= ", ':"', "'", "\n", "abc1"]
    chance = random.Random(1)  # noqa: S311 - the same text each time
    filled["needles shuffled"] = "".join(chance.choices(words, k=size // 5))[:size]
    return filled


def milliseconds(rounds: int, clock: Callable[[], float], work: Callable[[], object]) -> float:
    """Return the least time that the work took by the clock."""
    best = float("inf")
    for _ in range(rounds):
        start = clock()
        work()
        best = min(best, clock() - start)
    return best * 1000


def spent_by(conn: psycopg.Connection[Any]) -> Callable[[], float]:
    """Return the clock of a session: the processor time of its backend, in seconds, if that can be read here."""
    told = Path(f"/proc/{conn.info.backend_pid}/schedstat")
    title = Path(f"/proc/{conn.info.backend_pid}/cmdline")
    if not (told.is_file() and title.read_bytes().startswith(b"postgres")):
        return time.perf_counter
    return lambda: int(told.read_text().split()[0]) / 1e9


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-url")
    parser.add_argument("--most", type=float, default=100.0, help="milliseconds that a text may take")
    options = parser.parse_args()
    conn = psycopg.connect(options.database_url, autocommit=True) if options.database_url else None

    def in_database(text: str) -> object:
        # The answer's length, so that its way back over the wire is not counted; the way in is.
        return conn and conn.execute("select length(memory_plugin.redact(%s))", [text]).fetchone()

    clock = spent_by(conn) if conn else time.perf_counter
    if conn:
        sys.stdout.write(f"first call {milliseconds(1, clock, lambda: in_database(LOG)):8.1f} ms\n")
    rows = []
    for name, text in cases(options.size).items():
        redact(text[:2000], OWN)
        here = milliseconds(options.rounds, time.process_time, partial(redact, text, OWN))
        there = milliseconds(options.rounds, clock, partial(in_database, text)) if conn else 0.0
        rows.append((max(here, there), here, there, name))
    for _, here, there, name in sorted(rows, reverse=True):
        sys.stdout.write(f"{here:8.1f} ms" + (f" {there:8.1f} ms in the database" if conn else "") + f"  {name}\n")
    slow = sum(most > options.most for most, *_ in rows)
    if slow:
        sys.stdout.write(f"FAILED: {slow} of {len(rows)} texts take longer than {options.most:g} ms\n")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
