"""Fetch the vectors of the model that a store changes to, a request at a time."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

# A call begins no further request after this.
CALL_SECONDS = 10.0
# A claim of fewer memories than were asked for, and of less text than this, took all that there were.
SHORT_CHARACTERS = 100_000
# A provider of which one half is down loses texts that the other half takes.
ASKED_AGAIN = 3

# A request that has less time than this is not begun.
LEAST_SECONDS = 0.02

# What embedding.py answers with: vectors, scope, problem, retry_after. No text: see whether the provider works.
Fetch = Callable[[dict[str, Any], Sequence[str]], Any]
# The same, with the seconds it may take.
FetchWithin = Callable[[dict[str, Any], Sequence[str], float], Any]

# Types by their full names: a procedure that commits cannot pin a path, and the caller's may lead anywhere.
_CLAIM = "select * from memory_plugin._reembed_claim($1)", ["pg_catalog.int4"]
_SETTLE = (
    "select memory_plugin._reembed_settle($1, $2, $3, $4, $5, $6) as stored",
    [f"pg_catalog.{kind}" for kind in "uuid text[] uuid[] text[] text[] text".split()],
)


def refill(plpy: Any, most: int, probe: bool, fetch: Fetch) -> str:
    """Fetch up to `most` vectors; return {outcome, stored, problem, seconds} as JSON."""
    # As in embed_pending: while the provider is asked there is no snapshot and no lock.
    run = plpy.execute
    claim, settle = plpy.prepare(*_CLAIM), plpy.prepare(*_SETTLE)
    began, stored = time.monotonic(), 0
    while True:
        found = run("select * from memory_plugin.embedding_provider where slot = 'next'")
        provider = dict(found[0]) if len(found) else None
        asked = min(most - stored, provider["batch_size"]) if provider is not None else 0
        work = dict(run(claim, [most - stored])[0])
        plpy.commit()
        if probe and provider is not None:
            answer = fetch(provider, [])
            return _told("done" if answer.scope is None else "wait", 0, answer)
        if provider is None or work["revision"] != provider["revision"]:
            return _told("off", stored)
        if not work["ids"]:
            return _told("done", stored)
        parts = [list(range(len(work["ids"])))]
        while parts:
            part = parts.pop()
            texts = [work["texts"][i] for i in part]
            answer = fetch(provider, texts)
            for _ in range(ASKED_AGAIN if len(part) == 1 else 0):
                if answer.scope == "lost":
                    answer = fetch(provider, texts)
            # One that was asked for by itself may be what the provider fails at.
            blamed = answer.scope == "unclear" and most == 1
            if answer.scope in ("provider", "unclear") and not blamed:
                return _told("wait", stored, answer)
            if answer.scope in ("texts", "lost") and len(part) > 1:
                # One of them is at fault: find it by halves.
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
                continue
            vectors = answer.vectors if answer.scope in (None, "some") else [None] * len(part)
            given = [[work[name][i] for i in part] for name in ("namespaces", "ids", "hashes")]
            stored += run(settle, [work["revision"], *given, vectors, answer.problem])[0]["stored"]
            plpy.commit()
            if blamed:
                return _told("wait", stored, answer)
        if len(work["ids"]) < asked and sum(map(len, work["texts"])) < SHORT_CHARACTERS:
            # What is written meanwhile would keep this call at it for ever.
            return _told("done", stored)
        if stored >= most or time.monotonic() - began > CALL_SECONDS:
            return _told("more", stored)


def last(plpy: Any, seconds: float, fetch: FetchWithin) -> int:
    """Fetch what was written a moment ago, in the caller's transaction; return how many vectors were stored."""
    # Writers wait meanwhile: no second try, and no search for the text that a provider fails at.
    deadline = time.monotonic() + seconds
    claim, settle = plpy.prepare(*_CLAIM), plpy.prepare(*_SETTLE)
    found = plpy.execute("select * from memory_plugin.embedding_provider where slot = 'next'")
    stored = 0
    while len(found) and deadline - time.monotonic() > LEAST_SECONDS:
        work = dict(plpy.execute(claim, [found[0]["batch_size"]])[0])
        if not work["ids"]:
            break
        answer = fetch(dict(found[0]), work["texts"], deadline - time.monotonic())
        if answer.scope is not None:
            break
        given = [work[name] for name in ("revision", "namespaces", "ids", "hashes")]
        more = plpy.execute(settle, [*given, answer.vectors, None])[0]["stored"]
        stored += more
        if not more:
            break
    return stored


def _told(outcome: str, stored: int, answer: Any = None) -> str:
    """Return what became of a call, as JSON."""
    problem = None if answer is None else answer.problem
    seconds = 0.0 if answer is None else answer.retry_after or 0.0
    return json.dumps({"outcome": outcome, "stored": stored, "problem": problem, "seconds": seconds})
