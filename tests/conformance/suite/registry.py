"""Scenarios by name: what they need, and which rows of the specification they cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.protocol import ABILITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from suite.outcome import Step
    from suite.protocol import World

    Body = Callable[[World], Iterator[Step]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: a generator that asks a world and yields its answers."""

    name: str
    body: Body
    needs: frozenset[str]
    covers: tuple[str, ...]

    def run(self, world: World) -> list[str]:
        """Run it in a fresh world; return the answers, a line each."""
        return [str(step) for step in self.body(world)]


SCENARIOS: dict[str, Scenario] = {}


def scenario(*covers: str, needs: str = "") -> Callable[[Body], Body]:
    """Register a generator under its name; `needs` are abilities, separated by blanks."""
    wanted = frozenset(needs.split())
    if unknown := wanted - ABILITIES:
        raise ValueError(f"no such ability: {', '.join(sorted(unknown))}")

    def register(body: Body) -> Body:
        name = body.__name__
        if name in SCENARIOS:
            raise ValueError(f"two scenarios are called {name}")
        SCENARIOS[name] = Scenario(name, body, wanted, covers)
        return body

    return register
