"""`import valkyr`: its names are there, and what needs gRPC comes only when it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import valkyr


def test_every_public_name_is_there() -> None:
    for name in valkyr.__all__:
        assert getattr(valkyr, name).__name__ == name
        assert name in dir(valkyr)


def test_the_decorator_is_not_hidden_by_the_file_of_its_name() -> None:
    file = importlib.import_module("valkyr.module")
    assert valkyr.module is file.module


def test_importing_valkyr_does_not_import_grpc() -> None:
    code = "import sys, valkyr, valkyr.modules; print(valkyr.Context.__name__, 'grpc' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["Context", "False"]
