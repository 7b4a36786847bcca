"""How what a page shows is held against what was printed."""

from __future__ import annotations

import pytest

from tests.e2e.page import difference

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("shown", "printed", "problem"),
    [
        pytest.param('{\n  "a": 1\n}', '{\n    "a": 1\n}', None, id="indentation-does-not-count"),
        pytest.param('{\n...\n"c": 3\n}', '{\n"a": 1,\n"b": 2,\n"c": 3\n}', None, id="lines-left-out"),
        pytest.param('{\n...\n"a": 1\n}', '{\n"a": 1\n}', None, id="no-line-left-out"),
        pytest.param('"id": "..."', '"id": "7"', None, id="text-left-out"),
        pytest.param('...\n"a": 1\n...', '"a": 1\n"a": 2\n"a": 1\n"b"', None, id="the-same-line-twice"),
        pytest.param('{\n"a": 2\n}', '{\n"a": 1\n}', '"a": 2', id="another-value"),
        pytest.param('{\n"b": 2\n}', '{\n"a": 1,\n"b": 2\n}', '"b": 2', id="a-line-not-shown"),
        pytest.param('{\n"a": 1', '{\n"a": 1\n}', 'the end, after "a": 1', id="more-than-is-shown"),
        pytest.param('{\n...\n"c": 3\n}', '{\n"a": 1\n}', '"c": 3', id="a-line-that-never-comes"),
        pytest.param('"a": "x.y"', '"a": "xzy"', '"a": "x.y"', id="a-dot-is-a-dot"),
    ],
)
def test_an_output_is_compared_line_by_line(shown: str, printed: str, problem: str | None) -> None:
    assert difference(shown, printed) == problem
