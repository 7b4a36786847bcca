"""Page sizes and tokens."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from services.chassis.paging import page_place, page_size_of, page_token
from valkyr.api.graph.v1.graph_pb2 import FindWorkflowsRequest, ListVersionsRequest
from valkyr.errors import InvalidRequest


@pytest.mark.parametrize(("given", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_a_page_size_within_bounds_is_taken(given: int, size: int) -> None:
    assert page_size_of(ListVersionsRequest(page_size=given)) == size


@pytest.mark.parametrize("given", [-1, 1001, 2**31 - 1])
def test_i25_a_page_size_out_of_bounds_is_refused_by_name_and_value(given: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"pageSize: {given}"):
        page_size_of(ListVersionsRequest(page_size=given))


def test_a_token_leads_to_its_place_whatever_the_page_size() -> None:
    token = page_token(ListVersionsRequest(workflow_id="a", page_size=5), ["é", 7])
    assert page_place(ListVersionsRequest(workflow_id="a", page_size=9, page_token=token)) == ["é", 7]
    assert page_place(ListVersionsRequest(workflow_id="a")) is None


@pytest.mark.parametrize("change", [{"workflow_id": "b"}, {"workflow_id": "a", "namespace": "other"}])
def test_i25_a_token_of_another_query_is_refused(change: dict[str, Any]) -> None:
    token = page_token(ListVersionsRequest(workflow_id="a"), [1])
    with pytest.raises(InvalidRequest, match="pageToken"):
        page_place(ListVersionsRequest(page_token=token, **change))


def test_i25_a_token_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="pageToken"):
        page_place(FindWorkflowsRequest(page_token=page_token(ListVersionsRequest(), [1])))


@pytest.mark.parametrize("content", [b'{"place": 1}', b'"place"', b"1", b"null"])
def test_i25_a_token_that_holds_no_list_is_refused(content: bytes) -> None:
    request = ListVersionsRequest(workflow_id="a")
    hashed = base64.urlsafe_b64decode(page_token(request, []) + "==")[: -len(b"[]")]
    request.page_token = base64.urlsafe_b64encode(hashed + content).decode().rstrip("=")
    with pytest.raises(InvalidRequest, match="pageToken"):
        page_place(request)


@pytest.mark.parametrize("dirt", ["!", "\n", " "])
def test_i25_a_token_with_dirt_in_it_is_refused(dirt: str) -> None:
    token = page_token(ListVersionsRequest(workflow_id="a"), [7])
    with pytest.raises(InvalidRequest, match="pageToken"):
        page_place(ListVersionsRequest(workflow_id="a", page_token=token[:4] + dirt + token[4:]))


@pytest.mark.parametrize("token", ["x", "????", "é", "AAAA", "A" * 100_000, "bm90IGEgdG9rZW4"])
def test_i25_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="pageToken"):
        page_place(ListVersionsRequest(page_token=token))
