"""A module that behaves as badly as a module can: it does what its config says. It stands at the top of a file, as
another process has to import it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from valkyr.module import Context, PermanentError, RetryLater
from valkyr.runner.isolated.orders import answer
from valkyr.runner.leases import Success


class Order(BaseModel):
    do: str
    path: str = ""
    number: int = 0


def bad(context: Context, config: Order) -> Any:
    return DEEDS[config.do](context, config)


async def bad_async(context: Context, config: Order) -> Any:
    if config.do == "wait":
        return await _wait(config)
    if config.do == "stop_as_its_loop_closes":
        return await _stop_as_its_loop_closes(context, config)
    return DEEDS[config.do](context, config)


async def _wait(config: Order) -> None:
    _note_pid(config)
    try:
        await asyncio.sleep(1000)
    finally:
        _note_end(config)


async def _stop_as_its_loop_closes(context: Context, config: Order) -> Any:
    """Told to stop between its last step and the end of its loop, which takes nothing more."""

    def closed(*_: object) -> None:
        raise RuntimeError("Event loop is closed")

    asyncio.get_running_loop().call_soon_threadsafe = closed  # type: ignore[method-assign,assignment]
    _note_pid(config)
    while not context.cancelled:
        await asyncio.sleep(0.01)
    return "stopped as told"


def pid(context: Context, config: Order) -> Any:
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "thread": threading.current_thread().name,
    }


def whole_context(context: Context, config: Order) -> Any:
    context.cost_tokens = 1.5
    return {
        "ids": [context.execution_id, context.run_id, context.node_id, context.attempt],
        "key": context.idempotency_key,
        "trigger": context.trigger,
        "before": context.outputs_of("before"),
        "deadline": context.deadline,
        "settings": dict(context.settings),
        "traceparent": context.traceparent,
    }


def tell_and_die(context: Context, config: Order) -> None:
    for done in range(config.number + 1):
        context.heartbeat({"done": done})
    os.kill(os.getpid(), 9)


def go_on(context: Context, config: Order) -> Any:
    return {"before": context.progress}


def segfault(context: Context, config: Order) -> None:
    ctypes.string_at(0)


def end(context: Context, config: Order) -> None:
    print("these are my last words")
    os._exit(config.number)


def exit_politely(context: Context, config: Order) -> None:
    sys.exit(config.number)


def interrupt(context: Context, config: Order) -> None:
    raise KeyboardInterrupt


def signal_itself(context: Context, config: Order) -> None:
    os.kill(os.getpid(), config.number)
    time.sleep(1000)


def close_everything(context: Context, config: Order) -> None:
    os.closerange(0, 100)


def say_no_more(context: Context, config: Order) -> None:
    for descriptor in range(3, 100):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                socket.socket(fileno=os.dup(descriptor)).shutdown(socket.SHUT_WR)
        except OSError:
            continue
    time.sleep(1000)


def write_rubbish(context: Context, config: Order) -> None:
    _write_to_channel(b"\xff" * 64)
    time.sleep(1000)


def answer_and_write_rubbish(context: Context, config: Order) -> None:
    said = answer(Success(b'{"before":"the rubbish"}', None), without_values="", worn_out=False)
    _write_to_channel(said.encoded() + b"\xff" * 64)
    time.sleep(1000)


def _write_to_channel(data: bytes) -> None:
    for descriptor in range(3, 100):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, data)
        except OSError:
            continue


def leak(context: Context, config: Order) -> None:
    """A gigabyte, if it may."""
    kept = [bytearray(1 << 20) for _ in range(1000)]
    raise PermanentError(f"nobody minded {len(kept)} MiB")


def burn(context: Context, config: Order) -> None:
    _note_pid(config)
    while True:
        pass


def work(context: Context, config: Order) -> None:
    """So many milliseconds of processor time."""
    until = time.process_time() + config.number / 1000
    while time.process_time() < until:
        pass


def open_files(context: Context, config: Order) -> None:
    kept = []
    try:
        while True:
            kept.append(socket.socket())
    except OSError as error:
        raise PermanentError(f"{error.strerror} after {len(kept)}") from None


def hold_the_gil(context: Context, config: Order) -> None:
    """In C, for ever: no other thread of this process runs, and no signal handler."""
    _note_pid(config)
    "".join(str(number) for number in range(10))
    sum(iter(int, 1))


def hold_on(context: Context, config: Order) -> None:
    _note_pid(config)
    while True:
        time.sleep(0.01)


def look_and_stop(context: Context, config: Order) -> str:
    _note_pid(config)
    while not context.cancelled:
        time.sleep(0.01)
    return "stopped as told"


def print_for_ever(context: Context, config: Order) -> None:
    _note_pid(config)
    while True:
        print("and on and on")


def write_for_ever(context: Context, config: Order) -> None:
    """One line."""
    _note_pid(config)
    while True:
        os.write(1, b"x" * 65536)


def log_for_ever(context: Context, config: Order) -> None:
    _note_pid(config)
    while True:
        context.logger.info("and.on")


def tell_for_ever(context: Context, config: Order) -> None:
    _note_pid(config)
    while True:
        context.heartbeat({"done": "and on"})


def tell_much(context: Context, config: Order) -> None:
    for done in range(config.number):
        context.heartbeat({"done": done})
    raise PermanentError("told")


def print_a_line(context: Context, config: Order) -> None:
    print("hello\x1b[2J", "x" * 5000)
    os.write(2, b"no end of line, \xff")


def close_its_output(context: Context, config: Order) -> str:
    sys.stdout.close()
    return "done"


def lose_its_output(context: Context, config: Order) -> str:
    sys.stderr = None
    return "done"


def log_a_line(context: Context, config: Order) -> None:
    context.logger.warning("card.refused", amount=5, name="clashes", password="hunter2")


def log_too_much(context: Context, config: Order) -> None:
    context.logger.info("got.body", body="\x00ab" * (1 << 20), amount=5)
    context.logger.info("got.list", body=list(range(1 << 20)))
    context.logger.info("got.fields", **{f"field {number}": number for number in range(1 << 17)})
    logging.getLogger("library").info("x" * (3 << 20))


def too_large(context: Context, config: Order) -> Any:
    return "x" * (2 << 20)


def not_a_number(context: Context, config: Order) -> Any:
    return {"a": [float("nan")]}


def cyclic(context: Context, config: Order) -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def no_json(context: Context, config: Order) -> Any:
    return {"a": object()}


def start_another(context: Context, config: Order) -> Any:
    return {"pid": os.getpid(), "other": _sleeper().pid}


def start_another_and_hold_on(context: Context, config: Order) -> Any:
    Path(f"{config.path}.other").write_text(str(_sleeper().pid))
    hold_on(context, config)


def start_another_and_die(context: Context, config: Order) -> Any:
    Path(f"{config.path}.other").write_text(str(_sleeper().pid))
    os._exit(1)


def fork(context: Context, config: Order) -> Any:
    """Both come back, the forked one first."""
    other = os.fork()
    context.logger.warning("fork.speaks", forked=other == 0)
    if other:
        os.waitpid(other, 0)
    return {"forked": other == 0}


def descriptors(context: Context, config: Order) -> Any:
    links = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
        except OSError:
            continue
    inherited = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False)
    return {"own": links, "handed_on": len(inherited.stdout.split())}


def core_limit(context: Context, config: Order) -> Any:
    return resource.getrlimit(resource.RLIMIT_CORE)[0]


def permanent(context: Context, config: Order) -> None:
    raise PermanentError("the card has been stolen")


def later(context: Context, config: Order) -> None:
    raise RetryLater("too many", after=timedelta(seconds=7.5))


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"])


def _note_end(config: Order) -> None:
    Path(f"{config.path}.cleaned").touch()


def _note_pid(config: Order) -> None:
    if config.path:
        Path(config.path).write_text(str(os.getpid()))


DEEDS: dict[str, Callable[[Context, Order], Any]] = {
    deed.__name__: deed
    for deed in (
        pid,
        whole_context,
        tell_and_die,
        go_on,
        segfault,
        end,
        exit_politely,
        interrupt,
        signal_itself,
        close_everything,
        write_rubbish,
        answer_and_write_rubbish,
        leak,
        say_no_more,
        burn,
        work,
        open_files,
        hold_the_gil,
        hold_on,
        look_and_stop,
        print_for_ever,
        write_for_ever,
        log_for_ever,
        tell_for_ever,
        tell_much,
        print_a_line,
        close_its_output,
        lose_its_output,
        log_a_line,
        log_too_much,
        too_large,
        not_a_number,
        cyclic,
        no_json,
        start_another,
        start_another_and_hold_on,
        start_another_and_die,
        fork,
        descriptors,
        core_limit,
        permanent,
        later,
    )
}
