"""What a store that embeds by itself finds of a long conversation (LoCoMo), beside one whose clients send the vectors.

python bench/served_locomo.py [--server-url URL] [--data DIR] [--json FILE]

URL names a maintenance database of a server with plpython3u; without it one of this machine's packages is started. One
store and one sidecar, everything over /v1. Each conversation is committed twice: to a namespace with the vectors of the
data's .npz file, which are all-MiniLM-L6-v2's, and to another as text alone, which the database embeds with the same
model (minilm_service.py). Once nothing is pending, each question is asked of both in turn: with its vector, and as text
alone. The data and the figures are those of locomo.py. Exits 1 when text alone finds less (recall@10), a search was
degraded, or a memory could not be embedded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import locomo
import minilm_service
import psycopg
import server

WAYS = ("client", "served")
PATIENCE = 1800.0


def measure(server_url: str, folder: Path) -> dict[str, Any]:
    """Commit every turn in both ways and ask every question in both."""
    turns, questions, dimensions = locomo.load(folder)
    if dimensions != minilm_service.DIMENSIONS:
        raise LookupError(f"the data has {dimensions or 'no'} dimensions, the model {minilm_service.DIMENSIONS}")
    with (
        minilm_service.service() as model,
        server.store(server_url, dimensions) as url,
        psycopg.connect(url, autocommit=True) as conn,
    ):
        # Before the sidecar starts, which would find no provider and look again a quarter of a minute later.
        configure = "select memory_plugin.configure_embedding(%s, %s, %s)"
        conn.execute(configure, [model.url, model.model, dimensions])
        with server.sidecar(url) as client:
            door = locomo.Http(str(client.base_url))
            places = locomo.commit(door, turns, embedded=True)
            start = time.monotonic()
            places |= locomo.commit(door, [_served(turn) for turn in turns], embedded=False)
            committed = time.monotonic() - start
            waited = server.embedded_all(conn, PATIENCE)
            conn.execute("vacuum (analyze)")
            figures = {way: locomo.Figures() for way in WAYS}
            for question in questions:
                for way, namespace, embedding in _asked(question):
                    begun = time.perf_counter()
                    found = door.search(namespace, question.text, embedding)
                    took = (time.perf_counter() - begun) * 1000
                    figures[way].add(question, [places[memory] for memory in found], took)
        return {
            "bench": "served_locomo",
            "machine": server.described(url),
            "model": model.model,
            "memories": len(turns),
            "questions": len(questions),
            "committed_per_second": round(len(turns) / committed, 1),
            "embedded_per_second": round(len(turns) / (committed + waited), 1),
            "degraded": door.degraded,
            **{way: of.summary() for way, of in figures.items()},
        }


def _served(turn: locomo.Turn) -> locomo.Turn:
    return replace(turn, conversation=f"{turn.conversation}-served")


def _asked(question: locomo.Question) -> Iterator[tuple[str, str, str | None]]:
    """Yield the ways to ask a question: name, namespace and the vector that is sent."""
    yield "client", locomo.namespace_of(question.conversation), question.embedding
    yield "served", locomo.namespace_of(f"{question.conversation}-served"), None


def main() -> int:
    """Measure and print; status 1 when text alone finds less."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", help="a server with plpython3u; without it this machine's is started")
    parser.add_argument("--data", default=os.environ.get("LOCOMO_DIR"), help="the folder with LoCoMo ($LOCOMO_DIR)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    why = minilm_service.missing()
    if not options.data or not (Path(options.data) / "memories.jsonl").is_file():
        why = "no data (--data DIR or LOCOMO_DIR)"
    try:
        if why:
            raise LookupError(why)
        with server.full(options.server_url) as url:
            result = measure(url, Path(options.data))
    except LookupError as error:
        sys.stderr.write(f"served_locomo: skipped: {error}\n")
        return 0
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    out = sys.stdout.write
    out(f"LoCoMo: {result['memories']} memories, {result['questions']} questions, {result['degraded']} degraded\n")
    rates = f"committed {result['committed_per_second']}/s, embedded {result['embedded_per_second']}/s"
    out(f"{rates} by {result['model']}\n")
    for way in WAYS:
        out(f"{way:10s}" + "  ".join(f"{name} {value:.4f}" for name, value in result[way].items()) + "\n")
    return 1 if result["degraded"] or result["served"]["recall@10"] < result["client"]["recall@10"] else 0


if __name__ == "__main__":
    sys.exit(main())
