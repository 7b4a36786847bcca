"""The workloads as Procrastinate tasks."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector

from benchmarks.peers.driving import STEPS, say_done

POOL = 20


def application(postgres: str) -> App:
    """An application with the tasks `single` and `chain`."""
    app = App(connector=PsycopgConnector(conninfo=postgres, min_size=2, max_size=POOL))

    @app.task(name="single")
    async def single(number: int, value: int) -> None:
        say_done(number, value + 1)

    @app.task(name="chain")
    async def chain(number: int, value: int, step: int = 1) -> None:
        if step < STEPS:
            await chain.defer_async(number=number, value=value + 1, step=step + 1)
        else:
            say_done(number, value + 1)

    return app
