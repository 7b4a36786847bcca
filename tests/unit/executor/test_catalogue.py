"""What runners say of their modules, on its way to the graph store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.executor.catalogue import Catalogue
from valkyr.api.graph.v1.graph_pb2 import ModuleSpec
from valkyr.errors import Conflict, InvalidRequest, Unavailable, ValkyrError


class GraphStore:
    """Knows what it was told, is away as often as it is to be, and refuses a class called Wrong. `errors` are those of
    the next calls; a call that brings `held` stands still until it is let on, and has failed then."""

    def __init__(self, away: int = 0, *, errors: Sequence[ValkyrError] = (), held: str = "") -> None:
        self.away = away
        self.errors = list(errors)
        self.held = held
        self.came, self.let_on = asyncio.Event(), asyncio.Event()
        self.known: dict[str, str] = {}

    async def register_modules(self, namespace: str, modules: Sequence[Any]) -> None:
        if self.held and any(module.target == self.held for module in modules):
            self.came.set()
            await self.let_on.wait()
            self.held = ""
            raise Unavailable("the graph store was away")
        if self.errors:
            raise self.errors.pop(0)
        if self.away:
            self.away -= 1
            raise Unavailable("the graph store is away")
        if any(module.class_name == "Wrong" for module in modules):
            raise InvalidRequest("modules[0].configSchema: is none")
        self.known |= {module.class_name: module.target for module in modules}


def a_spec(class_name: str, target: str = "") -> ModuleSpec:
    return ModuleSpec(class_name=class_name, target=target)


async def test_what_was_refused_of_one_runner_later_costs_no_other_its_modules() -> None:
    store = GraphStore(away=2)
    catalogue = Catalogue(store, built_in=())
    await catalogue.hand_on("default", [a_spec("Wrong")])
    await catalogue.hand_on("default", [a_spec("Mine")])
    assert await catalogue.step() is None
    assert store.known == {"Mine": ""}


async def test_a_runner_is_not_refused_for_what_another_has_left_waiting() -> None:
    store = GraphStore(away=1)
    catalogue = Catalogue(store, built_in=())
    await catalogue.hand_on("default", [a_spec("Wrong")])
    await catalogue.hand_on("default", [a_spec("Mine")])
    assert store.known == {"Mine": ""}
    with pytest.raises(InvalidRequest):
        await catalogue.hand_on("default", [a_spec("Wrong")])


async def test_what_waited_never_takes_the_place_of_what_was_said_since() -> None:
    store = GraphStore(away=1)
    catalogue = Catalogue(store, built_in=())
    await catalogue.hand_on("default", [a_spec("Mine", "older"), a_spec("Other")])
    await catalogue.hand_on("default", [a_spec("Mine", "newer")])
    assert await catalogue.step() is None
    assert store.known == {"Mine": "newer", "Other": ""}


async def test_what_finds_the_graph_store_away_again_waits_on() -> None:
    store = GraphStore(away=2)
    catalogue = Catalogue(store, built_in=("NoopModule",))
    await catalogue.hand_on("default", [a_spec("Mine"), a_spec("NoopModule")])
    assert await catalogue.step() is not None
    assert await catalogue.step() is None
    assert store.known == {"Mine": ""}


@pytest.mark.parametrize("by_the_loop", [True, False], ids=["of the loop", "of another runner"])
async def test_an_older_spec_whose_call_fails_late_never_takes_the_place_of_a_newer_one(by_the_loop: bool) -> None:
    store = GraphStore(away=1)
    catalogue = Catalogue(store, built_in=())
    older = [a_spec("Mine", "older")]
    await catalogue.hand_on("default", older)
    store.held = "older"
    late = asyncio.create_task(catalogue.step() if by_the_loop else catalogue.hand_on("default", older))
    await store.came.wait()
    await catalogue.hand_on("default", [a_spec("Mine", "newer")])
    store.let_on.set()
    await late
    assert await catalogue.step() is None
    assert store.known == {"Mine": "newer"}


@pytest.mark.parametrize("error", [Conflict("at once"), ValkyrError("a bug")], ids=["conflict", "internal"])
async def test_no_trouble_of_the_graph_store_loses_a_spec_or_keeps_a_runner_out(error: ValkyrError) -> None:
    store = GraphStore(errors=[error])
    catalogue = Catalogue(store, built_in=())
    await catalogue.hand_on("default", [a_spec("Mine")])
    await catalogue.hand_on("other", [a_spec("Its")])
    store.errors = [error]
    assert await catalogue.step() is None
    assert store.known == {"Mine": "", "Its": ""}


async def test_what_stands_in_the_way_alone_is_left_out() -> None:
    store = GraphStore(errors=[ValkyrError("a bug")] * 3)
    catalogue = Catalogue(store, built_in=())
    await catalogue.hand_on("default", [a_spec("Bad"), a_spec("Good")])
    assert await catalogue.step() is None
    assert store.known == {"Good": ""}


async def test_a_call_that_was_cancelled_has_lost_nothing() -> None:
    store = GraphStore(held="mine")
    catalogue = Catalogue(store, built_in=())
    call = asyncio.create_task(catalogue.hand_on("default", [a_spec("Mine", "mine")]))
    await store.came.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    store.held = ""
    assert await catalogue.step() is None
    assert store.known == {"Mine": "mine"}


async def test_only_so_much_waits_and_the_oldest_is_left_out() -> None:
    store = GraphStore(away=3)
    catalogue = Catalogue(store, built_in=(), most_waiting=2)
    for name in ("First", "Second", "Third"):
        await catalogue.hand_on("default", [a_spec(name)])
    assert await catalogue.step() is None
    assert store.known == {"Second": "", "Third": ""}
