"""Ask an embedding provider (OpenAI's /v1/embeddings) for vectors, for the store's own session of the server."""

import hashlib
import json
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

# Sent to learn whether the provider works, in the place of anybody's memory.
PROBE = "memory"
PROBE_SECONDS = 5.0
# A call of embed_pending begins no further request after this.
CALL_SECONDS = 20.0
CACHE_SIZE = 128
# Of what a provider says, kept as the reason.
PROBLEM_CHARACTERS = 220
# After a failed query this session asks no more for so long: 5 s, doubled with each failure in a row.
PAUSE_SECONDS = 5.0
MOST_PAUSE_SECONDS = 60.0
_ENTRY = "memory_plugin.embedding"
_FLOAT4_MAX = 3.4e38

Post = Callable[..., tuple[int, dict[str, Any], bytes]]
Tick = Callable[[], object]


class Answer:
    """What became of a request."""

    # scope: None (every text has its vector), "some" (those without one are at fault), "texts" (the provider refuses
    # these texts), "denied" (it refuses, perhaps because of a text), "held" (it takes nothing now, or not from us;
    # hardly because of a text), "lost" (no usable answer, perhaps because of a text), "unclear" (held, or lost and now
    # it does not work without them either), "provider" (no text is at fault).

    def __init__(
        self, vectors: "list[str | None] | None" = None, scope: "str | None" = None, problem: "str | None" = None,
        retry_after: "float | None" = None,
    ) -> None:  # fmt: skip
        self.vectors = vectors
        self.scope = scope
        self.problem = problem
        self.retry_after = retry_after
        self.took_ms = 0.0


def session(store: dict[str, Any], mark: str) -> dict[str, Any]:
    """Return what this session keeps (GD), anew when other code than this left it behind."""
    kept = store.get(_ENTRY)
    if kept is None or kept["mark"] != mark:
        kept = store[_ENTRY] = {
            "mark": mark, "provider": None, "hosts": {}, "cache": OrderedDict(), "revision": None, "failures": 0,
            "closed_until": 0.0,
        }  # fmt: skip
    return kept


def load(plpy: Any, store: dict[str, Any], mark: str) -> bool:
    """Keep the provider, its key with it, where SQL cannot see it; tell whether there is one."""
    found = plpy.execute("select * from memory_plugin.embedding_provider where slot = 'current'")
    kept = session(store, mark)
    kept["provider"] = dict(found[0]) if len(found) else None
    return kept["provider"] is not None


def ask(
    provider: dict[str, Any], texts: Sequence[str], seconds: float, post: Post, tick: Tick,
    hosts: dict[Any, Any],
) -> Answer:  # fmt: skip
    """Ask for the vectors of some texts, in one request."""
    began = time.monotonic()
    answer = _asked(provider, texts, seconds, post, tick, hosts)
    answer.took_ms = (time.monotonic() - began) * 1000
    if answer.problem:
        # Masked before it is cut: of a key that the cut goes through, the rest would not be known again.
        answer.problem = _masked(answer.problem, provider["api_key"] or "")[:PROBLEM_CHARACTERS]
    return answer


def _masked(text: str, key: str) -> str:
    """Return a text with [key] where the key stands, or as much of its beginning as tells something."""
    least = min(len(key), 8)
    place = text.find(key[:least]) if key else -1
    while place >= 0:
        length = least
        while length < len(key) and text[place + length : place + length + 1] == key[length]:
            length += 1
        text = text[:place] + "[key]" + text[place + length :]
        place = text.find(key[:least], place + len("[key]"))
    return text


def _asked(
    provider: dict[str, Any], texts: Sequence[str], seconds: float, post: Post, tick: Tick,
    hosts: dict[Any, Any],
) -> Answer:  # fmt: skip
    payload = {"model": provider["model"], "input": list(texts)}
    if provider["send_dimensions"]:
        payload["dimensions"] = provider["dimensions"]
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "memory-plugin"}
    if provider["api_key"]:
        headers["Authorization"] = "Bearer " + provider["api_key"]
    limit = 1048576 + len(texts) * provider["dimensions"] * 64
    try:
        status, given, body = post(
            provider["url"], headers, json.dumps(payload).encode(), seconds, limit, tick, hosts,
            provider["ca_certificate"],
        )  # fmt: skip
    except OSError as error:
        # An ExchangeError, which is not imported here: the reason, and whether the request may have been seen.
        reason, sent = error.args
        return Answer(scope="lost" if sent else "provider", problem=reason)
    if status == 200:
        return read(body, len(texts), provider["dimensions"])
    problem, retry_after = "HTTP " + str(status), _retry_after(given)
    if status in (400, 413, 422):
        return Answer(scope="texts", problem=problem + _words(body))
    if status >= 500 or status == 408:
        return Answer(scope="lost", problem=problem, retry_after=retry_after)
    hint = {401: ": the key is not accepted", 404: ": no such path or model"}.get(status, "")
    if status == 403:
        # Asked to wait, nobody finds out whose fault it is, and what the sidecar then logs must quote no text.
        hint = (retry_after is None and _words(body)) or ": the key is not accepted"
    if 300 <= status < 400:
        hint = ": redirects are not followed"
    # A gateway or a moderation may refuse a text with any of these; to ask for something harmless right after the
    # others would be one request more that the provider did not want.
    scope = "denied" if 400 <= status < 500 and status not in (401, 429) else "held"
    return Answer(scope=scope, problem=problem + hint, retry_after=retry_after)


def _words(body: bytes) -> str:
    """Return what a provider says of a text that it refuses, short and on one line."""
    try:
        found = json.loads(body)
        found = found.get("error") or found.get("message") or found.get("detail")
        found = found.get("message") if isinstance(found, dict) else found
        if isinstance(found, str):
            return ": " + "".join(c if c.isprintable() else " " for c in found[:10000])
    except Exception:
        return ""
    return ""


def _retry_after(headers: dict[str, Any]) -> "float | None":
    """Return the seconds of a Retry-After, which may be a number or a date; at most an hour."""
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        if text.strip().isdigit():
            return float(min(int(text), 3600))
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), 3600.0)
    except (TypeError, ValueError, OverflowError):
        return None


def read(body: bytes, count: int, dimensions: int) -> Answer:
    """Return the vectors of an answer in the order of the texts, each as text that Postgres reads."""
    try:
        data = json.loads(body)["data"]
        indexes = [item.get("index") for item in data]
        if len(data) != count:
            return Answer(scope="lost", problem="the answer has " + str(len(data)) + " vectors, not " + str(count))
        if any(index is not None for index in indexes):
            if sorted(indexes) != list(range(count)) or not all(type(index) is int for index in indexes):
                return Answer(scope="lost", problem="the answer's indexes are not those of the texts")
            data = sorted(data, key=lambda item: item["index"])
        lengths = {len(item["embedding"]) for item in data if isinstance(item["embedding"], list)}
        if lengths - {dimensions}:
            other = str(sorted(lengths - {dimensions})[0])
            return Answer(
                scope="lost", problem="the vectors have " + other + " dimensions, the store " + str(dimensions)
            )
        vectors = [_vector(item["embedding"]) for item in data]
    # Anything may stand in an answer: other JSON, no JSON, numbers of a million digits, ten thousand levels.
    except Exception:
        return Answer(scope="lost", problem="the answer is not that of /v1/embeddings")
    if None in vectors:
        return Answer(vectors, "some", "the vector is all zeros, or holds what is not a finite number")
    return Answer(vectors)


def _vector(numbers: object) -> "str | None":
    """Return a vector as text; None where it is no direction: not numbers, not finite, all zeros."""
    if not isinstance(numbers, list) or not all(type(x) is float or type(x) is int for x in numbers):
        return None
    if not all(-_FLOAT4_MAX < x < _FLOAT4_MAX for x in numbers):
        return None
    length = math.sqrt(math.fsum(float(x) * x for x in numbers))
    if not 1e-30 < length < math.inf:
        return None
    # Only the direction counts. Numbers that single precision would lose are brought to unit length.
    scale = 1.0 if 0.001 <= length <= 1000 else 1 / length
    return "[" + ",".join(["%.9g" % (x * scale if abs(x * scale) > 1e-37 else 0.0) for x in numbers]) + "]"


def query(plpy: Any, store: dict[str, Any], mark: str, text: str, post: Post) -> "str | None":
    """Return the vector of a query, from this session's cache if it is there; None where none can be had soon."""
    kept = session(store, mark)
    found = plpy.execute(
        "select p.*, s.query_off_until + interval '10 seconds' > now() as off, "
        "extract(epoch from clock_timestamp() - statement_timestamp())::float8 as elapsed "
        "from memory_plugin.embedding_provider as p cross join memory_plugin.embedding_state as s "
        "where p.slot = 'current'"
    )
    if not len(found):
        return None
    provider = found[0]
    asked = provider["query_prefix"] + text[: provider["max_characters"]]
    cache, key = kept["cache"], (provider["revision"], hashlib.sha256(asked.encode("utf-8", "surrogatepass")).digest())
    if key in cache:
        cache.move_to_end(key)
        return str(cache[key])
    if provider["revision"] != kept["revision"]:
        # Another provider, or the same with the right key: what failed was the one before it.
        kept["revision"], kept["failures"], kept["closed_until"] = provider["revision"], 0, 0.0
    if provider["off"] or time.monotonic() < kept["closed_until"]:
        return None
    # What a session's first search takes before it asks is the search's time as well.
    most = provider["query_timeout_ms"] / 1000
    seconds = max(most / 2, most - provider["elapsed"])
    try:
        answer = ask(provider, [asked], seconds, post, _ticker(plpy), kept["hosts"])
    # The backend is to stop.
    except plpy.SPIError:
        raise
    # Whatever it is, the search goes on without.
    except Exception as error:
        answer = Answer(scope="lost", problem=type(error).__name__)
    if answer.scope is not None:
        if answer.scope in ("denied", "held", "lost", "provider"):
            kept["failures"] += 1
            pause = min(PAUSE_SECONDS * 2 ** min(kept["failures"] - 1, 10), MOST_PAUSE_SECONDS)
            kept["closed_until"] = time.monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311
        return None
    kept["failures"] = 0
    cache[key] = (answer.vectors or [None])[0]
    if len(cache) > CACHE_SIZE:
        cache.popitem(last=False)
    return str(cache[key])


def test(plpy: Any, store: dict[str, Any], mark: str, post: Post, provider: "dict[str, Any] | None") -> str:
    """Send one text to a provider, else to the configured one; return {ok, took_ms, problem?} as JSON."""
    kept = session(store, mark)
    if provider is None:
        if not load(plpy, store, mark):
            return json.dumps({"ok": False, "problem": "no embedding provider is configured"})
        provider, kept["provider"] = kept["provider"], None
    answer = ask(provider, [PROBE], provider["timeout_ms"] / 1000, post, _ticker(plpy), kept["hosts"])
    told = {"ok": answer.scope is None, "took_ms": round(answer.took_ms, 1)}
    return json.dumps(told if answer.scope is None else {**told, "problem": answer.problem})


def pending(plpy: Any, store: dict[str, Any], mark: str, most: int, probe: bool, post: Post) -> str:
    """Embed up to `most` pending memories, a request at a time; return {outcome, embedded, seconds} as JSON."""
    # Between a commit and the next statement the transaction has no snapshot and no lock: that is when the provider is
    # asked. What was claimed is kept from other sessions by a lease, not by a lock.
    run = plpy.execute
    # Types by their full names: a procedure that commits cannot pin a path, and the caller's may lead anywhere.
    claim = plpy.prepare("select * from memory_plugin.embedding_claim($1, $2)", ["pg_catalog.int4", "pg_catalog.bool"])
    settle = plpy.prepare(
        "select memory_plugin.embedding_settle($1, $2, $3, $4, $5, $6, $7, $8, $9) as embedded",
        [f"pg_catalog.{kind}" for kind in "uuid text[] uuid[] text[] text[] text text float8 float8".split()],
    )
    began, embedded, kept = time.monotonic(), 0, session(store, mark)
    while True:
        # A null is the claim's to refuse, as any other wrong number.
        work = run(claim, [most - embedded if embedded else most, probe])[0]
        probe = False
        try:
            if work["action"] in ("embed", "probe"):
                run("select memory_plugin.embedding_session()")
            plpy.commit()
            provider = kept["provider"]
            if work["action"] not in ("embed", "probe"):
                break
            if provider is None:
                # Removed this moment, or this session's code was replaced under it: the next call knows.
                work = {"action": "more", "seconds": 0.0}
                break
            texts = work["texts"] or []
            # The statement in which an interrupt shows takes a snapshot; the commit lets go of it.
            answer = _answer(
                provider, texts, work["action"], post, lambda: (run("select"), plpy.commit()), kept["hosts"]
            )
        finally:
            kept["provider"] = None
        done = run(
            settle,
            [
                work["revision"], work["namespaces"] or [], work["ids"] or [], work["hashes"] or [],
                answer.vectors if texts else None, answer.scope, answer.problem, answer.retry_after, answer.took_ms,
            ],
        )  # fmt: skip
        embedded += done[0]["embedded"]
        plpy.commit()
        if embedded >= most or time.monotonic() - began > CALL_SECONDS:
            work = {"action": "more", "seconds": 0.0}
            break
    return json.dumps({"outcome": work["action"], "embedded": embedded, "seconds": work["seconds"]})


def _answer(
    provider: dict[str, Any], texts: Sequence[str], action: str, post: Post, tick: Tick,
    hosts: dict[Any, Any],
) -> Answer:  # fmt: skip
    """Ask, and where texts or provider may be at fault, find out which by asking for something harmless."""
    if action == "probe":
        return ask(provider, [PROBE], min(provider["timeout_ms"] / 1000, PROBE_SECONDS), post, tick, hosts)
    answer = ask(provider, texts, provider["timeout_ms"] / 1000, post, tick, hosts)
    if answer.scope not in ("texts", "denied", "held", "lost"):
        return answer
    if answer.scope == "held" or answer.retry_after is not None:
        answer.scope = "unclear"
        return answer
    check = ask(provider, [PROBE], min(provider["timeout_ms"] / 1000, PROBE_SECONDS), post, tick, hosts)
    if check.scope is None:
        if answer.scope == "denied":
            answer.scope = "texts"
        return answer
    if answer.scope != "lost":
        check.scope = "provider"
        return check
    answer.scope, answer.retry_after = "unclear", check.retry_after
    return answer


def _ticker(plpy: Any) -> Tick:
    """Return what lets the backend notice between two waits that it is to stop."""
    return lambda: plpy.execute("select")
