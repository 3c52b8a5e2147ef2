"""Where a memory of the platform's earlier table belongs, by its scope and the tree of workspaces. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SCOPES = ("LOCAL", "TEAM", "GLOBAL")


@dataclass(frozen=True)
class Route:
    """The namespace that a memory goes to, or the reason why none can be told."""

    namespace: str | None = None
    reason: str | None = None


class Lineage:
    """The tree of workspaces, as workspace -> parent (None at a root)."""

    def __init__(self, parents: Mapping[str, str | None]) -> None:
        self._parents = parents
        self._roots: dict[str, Route] = {}

    def route(self, workspace: str | None, scope: str | None) -> Route:
        """Return where a memory of this workspace and scope goes.

        LOCAL stays with its workspace. TEAM goes to the parent, or to the workspace itself at the root. GLOBAL goes to
        the root. Where the tree has no answer (a workspace or parent that is not there, a circle), there is a reason.
        """
        if workspace is None:
            return Route(reason="workspace_id is null")
        if scope not in SCOPES:
            return Route(reason=f"scope is {'null' if scope is None else scope}, and not one of: {', '.join(SCOPES)}")
        if scope == "LOCAL":
            return Route(f"workspace:{workspace}")
        return self._team(workspace) if scope == "TEAM" else self._org(workspace)

    def _team(self, workspace: str) -> Route:
        """Return the parent's team."""
        if workspace not in self._parents:
            return Route(reason=f"orphan: workspace {workspace} is not in workspaces")
        parent = self._parents[workspace]
        if parent is not None and parent not in self._parents:
            return Route(reason=f"orphan: parent {parent} of workspace {workspace} is not in workspaces")
        above, seen = parent, {workspace}
        while above is not None and above not in seen:
            seen.add(above)
            above = self._parents.get(above)
        if above == workspace:
            return Route(reason=f"cycle: workspace {workspace} is its own ancestor")
        return Route(f"team:{parent or workspace}")

    def _org(self, workspace: str) -> Route:
        """Return the root's org, remembering it for every workspace on the way."""
        path: list[str] = []
        on_path: set[str] = set()
        here = workspace
        while True:
            if here in self._roots:
                found = self._roots[here]
                break
            if here in on_path:
                found = Route(reason=f"cycle: workspace {here} is its own ancestor")
                break
            if here not in self._parents:
                below = f"parent {here} of workspace {path[-1]}" if path else f"workspace {here}"
                found = Route(reason=f"orphan: {below} is not in workspaces")
                break
            path.append(here)
            on_path.add(here)
            parent = self._parents[here]
            if parent is None:
                found = Route(f"org:{here}")
                break
            here = parent
        self._roots.update(dict.fromkeys(path, found))
        return found
