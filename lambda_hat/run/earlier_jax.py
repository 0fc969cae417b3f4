"""A problem that was planned under another version of JAX: it stays the target that it was, or a new one is told.

What makes a loss's id is its text in StableHLO, which another version of JAX writes in other words. Where a store has a
target of the same arrays, the same source files and the same numbers (:mod:`lambda_hat.targets.problem.probes`), its id
is kept.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from lambda_hat.config.job import canonical
from lambda_hat.config.schema import Document
from lambda_hat.store.files import read_json
from lambda_hat.store.layout import Store
from lambda_hat.targets.problem import Problem
from lambda_hat.targets.problem.own import Content, Facts, Own
from lambda_hat.targets.problem.probes import agree


class Earlier:
    """The targets of own problems that a store has, read once."""

    def __init__(self, store: Store):
        self._store = store

    def as_before(self, own: Own, problem: Problem) -> tuple[Own, str]:
        """``own`` with the id that its loss had under another version of JAX, where the store has such a target.

        Returns:
            Also a sentence about it, empty where there is nothing to tell.
        """
        content, facts = own.content, own.facts
        assert content is not None
        assert facts is not None
        for target_id, before in self._others(content, facts, problem.num_data):
            other = Facts(**before["facts"])
            differing = _differences(facts, other, is_coarse=problem.computes_in_less)
            if differing:
                return own, (
                    f"a new target: {target_id} has the same arrays, but was planned under JAX {other.jax}, and "
                    f"{differing}; under JAX {facts.jax} its loss cannot be told to be the same"
                )
            kept = {name: before["content"][name] for name in ("loss", "outputs")}
            return replace(own, content=replace(content, **kept)), (
                f"{target_id}, which was planned under JAX {other.jax}, is taken for the same under JAX {facts.jax}: "
                "its arrays, source files and probes are equal"
            )
        return own, ""

    @cached_property
    def _targets(self) -> list[tuple[str, Document]]:
        paths = sorted(self._store.root.glob("targets/tgt_*/meta.json"))
        found = [(path.parent.name, read_json(path) or {}) for path in paths]
        return [(target_id, meta) for target_id, meta in found if meta.get("own") is not None]

    def _others(self, content: Content, facts: Facts, num_data: int) -> Iterator[tuple[str, Document]]:
        """The targets of the same arrays that another version of JAX has planned; none where this one has."""
        asked = canonical(content)
        found: list[tuple[str, Document]] = []
        for target_id, meta in self._targets:
            before = meta["own"]
            if meta["num_data"] != num_data:
                continue
            if any(before["content"][name] != asked[name] for name in ("params", "state", "data", "polish")):
                continue
            if before["content"] == asked:
                return
            if before["facts"]["jax"] != facts.jax and (before["content"]["outputs"] is None) == (
                content.outputs is None
            ):
                found.append((target_id, before))
        yield from found


def _differences(now: Facts, before: Facts, *, is_coarse: bool) -> str:
    if not now.sources or not before.sources:
        return "it was made in a session, without a source file"
    if now.sources != before.sources:
        changed = {file for file, _ in now.sources.items() ^ before.sources.items()}
        return f"{' and '.join(sorted(changed))} changed since"
    return "" if agree(now.probes, before.probes, is_coarse=is_coarse) else "row losses or gradients differ"
