"""requirements/ names one release, with its hashes, of all that pyproject.toml asks for: `make lock` writes it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
BUILD = PROJECT["dependency-groups"]["build"]
WANTED = {
    "image": [*PROJECT["project"]["dependencies"], *BUILD],
    "serve": [*PROJECT["project"]["dependencies"], *EXTRAS["embedded"], *BUILD],
    "dev": [*PROJECT["project"]["dependencies"], *EXTRAS["embedded"], *EXTRAS["dev"]],
    "bench": [*PROJECT["project"]["dependencies"], *EXTRAS["embedded"], *EXTRAS["bench"], *BUILD],
}


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return what a lock holds: each requirement with its hashes."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ").splitlines()
    entries = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [
        (Requirement(entry.partition(" --hash=")[0].strip()), re.findall(r"--hash=(\S+)", entry)) for entry in entries
    ]


@pytest.mark.parametrize("name", WANTED)
def test_every_requirement_is_locked_at_a_release_it_allows(name: str) -> None:
    releases: dict[str, list[Version]] = {}
    for requirement, _ in locked(name):
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        releases.setdefault(canonicalize_name(requirement.name), []).append(Version(pin.version))
    for text in WANTED[name]:
        wanted = Requirement(text)
        there = releases.get(canonicalize_name(wanted.name), [])
        assert there, f"requirements/{name}.txt lacks {wanted.name}: run make lock"
        assert all(release in wanted.specifier for release in there), f"{text}, but {there} is locked: run make lock"


@pytest.mark.parametrize("name", WANTED)
def test_everything_locked_has_hashes_and_comes_by_name(name: str) -> None:
    entries = locked(name)
    assert len(entries) > 5
    for requirement, hashes in entries:
        assert requirement.url is None
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), requirement


def test_what_is_installed_to_be_tested_is_what_is_locked() -> None:
    from importlib.metadata import version

    for requirement, _ in locked("dev"):
        if requirement.marker is None or requirement.marker.evaluate():
            assert version(requirement.name) in requirement.specifier, f"{requirement.name}: run make venv"


def test_the_image_is_made_of_what_its_lock_names() -> None:
    lines = (ROOT / "docker" / "Dockerfile.sidecar").read_text().splitlines()
    (locked_step,) = (line for line in lines if "--require-hashes -r requirements/image.txt" in line)
    (our_step,) = (line for line in lines if line.startswith("RUN") and line.endswith(" ."))
    assert "--no-deps" in our_step
    assert lines.index(locked_step) < lines.index(our_step)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line]
    assert {source for sources in copied for source in sources} == sent
    assert all((ROOT / source).exists() for source in sent)
