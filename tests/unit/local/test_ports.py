"""Ports: what is taken is named, with its user and the mend."""

from __future__ import annotations

import os
import socket

import pytest

from services.local.errors import StackError
from services.local.ports import is_free, parse_port_base, require_free
from services.local.rooms import DEFAULT_PORT_BASE, ROOMS
from tests.free_ports import a_port_base


@pytest.mark.parametrize("text", ["80", "65001", "-5", "5o051", "50051.0", "٥٠٠٥١", " "])
def test_a_port_base_that_is_none_is_named(text: str) -> None:
    with pytest.raises(StackError, match="VALKYR_PORT_BASE=" + text.replace(".", r"\.")):
        parse_port_base(text)


def test_a_port_base_defaults() -> None:
    assert parse_port_base(None) == parse_port_base("") == DEFAULT_PORT_BASE
    assert parse_port_base("1024") == 1024


def test_a_taken_port_is_named_with_who_has_it() -> None:
    port = a_port_base()
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        with pytest.raises(StackError) as caught:
            require_free(ROOMS[:1], port)
        assert f"port {port} (for graph_store) is in use by pid {os.getpid()}" in str(caught.value)
        assert f"VALKYR_PORT_BASE={port + 100}" in caught.value.hint
    assert is_free(port)
    require_free(ROOMS[:1], port)


def test_connections_that_linger_do_not_make_a_port_taken() -> None:
    port = a_port_base()
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side closes first, and so keeps the port in TIME_WAIT
        client.close()
    assert is_free(port)
