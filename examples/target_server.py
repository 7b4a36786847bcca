"""The services that the examples call: `python -m examples.target_server 8099`.

Answers POST /quotes, /risk, /reservations, /charges and /shipments for examples/order_fulfilment.yaml, and /stock,
/vans and /cards for examples/rough_day.yaml. A repeated Idempotency-Key gets the first answer. What is `down` answers
503, and so does what stumbles, so often as it is told.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

CENTS = {"KEY-1": 4900, "PEN-7": 350}
OTHER_CENTS = 1000
SUSPICIOUS_CENTS = 100_000
EXPIRED_CARD = "VISA-OLD"


class TargetServer:
    """Serves on loopback in a thread of its own until closed; `port` 0 takes a free one. Counts what it was asked.

    `down` has paths such as "/vans"; `stumbles` says how often (path, order) is still refused.
    """

    def __init__(self, port: int = 0) -> None:
        self.down: set[str] = set()
        self.stumbles: dict[tuple[str, str], int] = {}
        self._answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self.calls: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, key: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body for one call."""
        work = ROUTES.get(path)
        if work is None:
            return 404, {"error": f"there is no {path}"}
        with self._lock:
            self.calls.append(path)
            if self._is_out_of_order(path, str(request.get("order"))):
                return 503, {"error": f"{path} is out of order"}
            if key not in self._answers:
                self._answers[key] = work(request, len(self.calls))
            return self._answers[key]

    def _is_out_of_order(self, path: str, order: str) -> bool:
        left = self.stumbles.get((path, order), 0)
        if left:
            self.stumbles[path, order] = left - 1
        return bool(left) or path in self.down

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = json.loads(self.rfile.read(length) or b"{}")
                key = self.headers.get("Idempotency-Key") or str(id(request))
                status, answer = target.answer(self.path, f"{self.path} {key}", request)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent: the demo tells the story."""

        return Handler


def _quote(request: dict[str, Any], _number: int) -> tuple[int, dict[str, Any]]:
    total = sum(CENTS.get(item["sku"], OTHER_CENTS) * item["quantity"] for item in request["items"])
    return 200, {"total": total, "currency": "EUR"}


def _risk(request: dict[str, Any], _number: int) -> tuple[int, dict[str, Any]]:
    return 200, {"score": 90 if request["total"] > SUSPICIOUS_CENTS else 12}


def _card(request: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
    if request["card"] == EXPIRED_CARD:
        return 402, {"error": "the card has expired"}
    return 201, {"charge": f"C-{number}"}


ROUTES: dict[str, Callable[[dict[str, Any], int], tuple[int, dict[str, Any]]]] = {
    "/quotes": _quote,
    "/risk": _risk,
    "/reservations": lambda _request, number: (200, {"reservation": f"R-{number}"}),
    "/charges": lambda request, number: (201, {"charge": f"C-{number}", "cents": request["cents"]}),
    "/shipments": lambda _request, number: (201, {"parcel": f"P-{number}"}),
    "/stock": lambda _request, number: (200, {"shelf": f"S-{number}"}),
    "/vans": lambda _request, number: (201, {"van": f"V-{number}"}),
    "/cards": _card,
}


def main() -> None:
    """Serves until Ctrl-C."""
    with TargetServer(int(sys.argv[1]) if len(sys.argv) > 1 else 8099) as target:
        print(f"serving on {target.url}; Ctrl-C stops")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
