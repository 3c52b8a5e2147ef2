"""From end to end with a real model: commit text alone, let the database embed it, find it by a paraphrase.

python bench/paraphrase.py [--server-url URL] [--json FILE]

URL names a maintenance database of a server with plpython3u; without it one of this machine's packages is started. Done
twice, over /v1 through a sidecar and in psql: commit the memories, no embedding sent; wait until none is pending; ask
for one of them in other words, of which no memory has one that carries meaning. Exits 1 unless each question finds its
memory first, with no search degraded. Printed beside it: how many are first when meaning counts for nothing (words
alone), and how many of a few questions that by chance share a word with another memory (chance words).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import minilm_service
import psycopg
import server

PAIRS = {
    "Ada's automobile broke down on the motorway this morning": "whose car has failed?",
    "The physician told Ben to stop eating salt": "what medical advice did somebody get?",
    "Carla adores hiking in the mountains at weekends": "which outdoor hobbies does she like?",
    "We deploy on Tuesdays, never before a holiday": "when are releases shipped?",
    "Dana moved from Lisbon to Oslo in March": "who relocated to Norway?",
    "The invoice from the printing house is still unpaid": "is there a bill that we owe money for?",
    "Emil cannot have anything with peanuts or cashews": "does anybody suffer from a nut allergy?",
    "Her puppy chewed up the sofa cushions": "what did the dog destroy?",
    "The database ran out of disk space on Friday night": "why was there an outage of storage?",
    "Farah is learning to play the cello": "has anyone begun a musical instrument?",
    "Keep answers short and skip the pleasantries": "how concise should replies be?",
    "The twins were born two weeks early": "tell me about the babies",
}
# The word is in a memory that is about something else: given, new, taking.
CHANCE = {
    "The physician told Ben to stop eating salt": "what medical advice was somebody given?",
    "We deploy on Tuesdays, never before a holiday": "when are new releases shipped?",
    "Farah is learning to play the cello": "is somebody taking up a musical instrument?",
}
OTHERS = (
    "The office closes at six on Fridays",
    "Gregor prefers tabs over spaces",
    "The new coffee machine takes beans and ground coffee",
    "Hana booked the large meeting room for Thursday",
    "The password of the guest network changes every month",
    "Ivan read three books about the Roman empire",
    "The window in the kitchen does not close",
    "Tests run on every commit, the slow ones at night",
    "Jonas wants the report as a spreadsheet",
    "The train to the airport leaves every half hour",
    "Kim grows tomatoes and basil on the balcony",
    "The front end is written in TypeScript",
    "Lena's flight was cancelled because of fog",
    "The budget for the next year is not decided",
    "Milo collects stamps from the Nordic countries",
    "A ticket without an owner is closed after a month",
    "The heating in the basement makes a strange noise",
    "Nadia speaks Arabic, French and some Dutch",
    "Logs are kept for thirty days",
    "The bakery at the corner opens at five",
    "Otto paints the fence green every spring",
    "The contract with the cleaning company ends in June",
    "Petra ran the marathon in under four hours",
    "The old printer was given to the school",
)
PATIENCE = 120.0


@dataclass(frozen=True)
class Door:
    """What was found through one door."""

    asked: int
    first: int
    words_alone: int
    chance_asked: int
    chance_first: int
    degraded: int
    embed_seconds: float
    """From the last commit until nothing was pending."""
    search_p50_ms: float
    """Of searches whose query the database had not seen before; in psql with the start of two sessions."""
    missed: tuple[str, ...]


def memories() -> list[str]:
    """Return the texts to commit, those that are asked for among the others."""
    kept = list(OTHERS)
    for place, text in enumerate(PAIRS):
        kept.insert(3 * place + 1, text)
    return kept


def over_http(url: str, conn: psycopg.Connection[Any]) -> Door:
    """Commit and ask through a sidecar."""
    with server.sidecar(url) as client:

        def posted(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = client.post(path, json=body)
            answer.raise_for_status()
            told: dict[str, Any] = answer.json()
            return told

        for text in memories():
            posted("/v1/namespaces/team:door/memories", {"content": text, "kind": "fact", "source": "user"})
        waited = server.embedded_all(conn, PATIENCE)
        return asked(lambda body: posted("/v1/search", {"namespaces": ["team:door"], **body}), waited)


def from_psql(url: str, conn: psycopg.Connection[Any]) -> Door:
    """Commit, embed and ask in psql, a session a statement, without a sidecar."""
    for text in memories():
        _psql(url, "select memory_plugin.commit_memory('team:psql', :'given');", text)
    start = time.monotonic()
    while (told := json.loads(_psql(url, "call memory_plugin.embed_pending();")))["outcome"] != "done":
        if time.monotonic() - start > PATIENCE:
            raise RuntimeError(f"not embedded: {told}")
        time.sleep(told["seconds"])
    waited = time.monotonic() - start
    server.embedded_all(conn, 0)

    def search(body: dict[str, Any]) -> dict[str, Any]:
        body = {"namespaces": ["team:psql"], **body}
        told: dict[str, Any] = json.loads(_psql(url, "select memory_plugin.v1_search(:'given');", json.dumps(body)))
        if "weights" not in body:
            # The typed function, as a person would call it.
            statement = "select content from memory_plugin.search(array['team:psql'], query => :'given') limit 1;"
            told["memories"] = [{"content": _psql(url, statement, body["query"])}]
        return told

    return asked(search, waited)


def _psql(url: str, statement: str, given: str = "") -> str:
    command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-v", f"given={given}", url]
    return subprocess.run(command, input=statement, capture_output=True, text=True, check=True).stdout.strip()


def asked(search: Callable[[dict[str, Any]], dict[str, Any]], waited: float) -> Door:
    """Ask every question through a door."""
    took, degraded = [], 0

    def first(question: str, **more: object) -> str | None:
        nonlocal degraded
        start = time.perf_counter()
        told = search({"query": question, "limit": 1, **more})
        took.append((time.perf_counter() - start) * 1000)
        degraded += "degraded" in told["search"]
        return told["memories"][0]["content"] if told["memories"] else None

    missed = tuple(question for text, question in PAIRS.items() if first(question) != text)
    chance = sum(first(question) == text for text, question in CHANCE.items())
    p50 = statistics.median(took)
    alone = sum(first(question, weights={"lexical": 1, "semantic": 0}) == text for text, question in PAIRS.items())
    return Door(len(PAIRS), len(PAIRS) - len(missed), alone, len(CHANCE), chance, degraded, waited, p50, missed)


def measure(server_url: str) -> dict[str, Any]:
    """Make a store, and try both doors."""
    with minilm_service.service() as model, server.store(server_url, minilm_service.DIMENSIONS) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            configure = "select memory_plugin.configure_embedding(%s, %s, %s)"
            conn.execute(configure, [model.url, model.model, minilm_service.DIMENSIONS])
            doors = {"/v1": over_http(url, conn), "psql": from_psql(url, conn)}
        return {
            "bench": "paraphrase",
            "machine": server.described(url),
            "model": model.model,
            "memories": len(memories()),
            "doors": {name: asdict(door) for name, door in doors.items()},
        }


def main() -> int:
    """Measure and print; status 1 when a paraphrase did not find its memory first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", help="a server with plpython3u; without it this machine's is started")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if why := minilm_service.missing() or ("" if shutil.which("psql") else "psql is not there"):
        sys.stderr.write(f"paraphrase: skipped: {why}\n")
        return 0
    try:
        with server.full(options.server_url) as url:
            result = measure(url)
    except LookupError as error:
        sys.stderr.write(f"paraphrase: skipped: {error}\n")
        return 0
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    failed = False
    for name, door in result["doors"].items():
        found = f"{door['first']} of {door['asked']} paraphrases first ({door['words_alone']} by words alone)"
        chance = f"{door['chance_first']} of {door['chance_asked']} despite a chance word, {door['degraded']} degraded"
        spent = f"embedded in {door['embed_seconds']:.1f} s, search p50 {door['search_p50_ms']:.0f} ms"
        sys.stdout.write(f"{name:5s} {found}; {chance}; {spent}\n")
        sys.stdout.writelines(f"      not first: {question}\n" for question in door["missed"])
        failed = failed or bool(door["missed"]) or bool(door["degraded"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
