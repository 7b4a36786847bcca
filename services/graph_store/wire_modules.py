"""Protobuf <-> the catalogue of modules."""

from __future__ import annotations

from collections.abc import Sequence

from services.chassis.paging import bad_page_token, fitting, page_place
from services.graph_store.model import Author
from services.graph_store.model_modules import ModulePage, Registration
from services.graph_store.wire import check_text
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import LimitExceeded
from valkyr.graph import fields
from valkyr.graph.catalogue import CatalogueModule
from valkyr.rpc.channel import MAX_MESSAGE_BYTES
from valkyr.rpc.modules import module_to_proto, read_module

MAX_MODULES = 1_000
MAX_REQUEST_ID = 255
MAX_REQUEST_BYTES = MAX_MESSAGE_BYTES - 1024 * 1024
"""The answer says all of a request again, and who registered each module."""


def read_registration(request: pb.RegisterModulesRequest, namespace: str, author: Author) -> Registration:
    """InvalidRequest naming every field that cannot be read; LimitExceeded."""
    if len(request.modules) > MAX_MODULES or request.ByteSize() > MAX_REQUEST_BYTES:
        raise LimitExceeded.of_field(
            "modules",
            f"{len(request.modules):,} modules of {request.ByteSize():,} bytes in all are too many at once; at most"
            f" {MAX_MODULES:,} and {MAX_REQUEST_BYTES:,} bytes; register them in several calls",
        )
    problems = fields.Problems()
    if not request.modules:
        problems.add("modules", "names no module; give one at least")
    check_text(request.request_id, "requestId", MAX_REQUEST_ID, problems)
    modules = [read_module(module, f"modules[{index}]", problems) for index, module in enumerate(request.modules)]
    problems.raise_if_any()
    return Registration(namespace, modules, author, request.request_id)


def write_registered(modules: Sequence[CatalogueModule]) -> pb.RegisterModulesResponse:
    return pb.RegisterModulesResponse(modules=[module_to_proto(module) for module in modules])


def read_module_place(request: pb.ListModulesRequest) -> str:
    """The class name that the page before ended with, "" for the first page. InvalidRequest."""
    match page_place(request):
        case None:
            return ""
        case [str(name)] if "\x00" not in name:
            return name
        case _:
            raise bad_page_token(request.page_token)


def write_page(page: ModulePage) -> tuple[pb.ListModulesResponse, str]:
    """As many as fit into a message, one at least; and the class name that the page ends with, "" for the last page."""
    messages = fitting(map(module_to_proto, page.modules))
    answer = pb.ListModulesResponse(catalogue_revision=page.revision, modules=messages)
    is_last = len(messages) == len(page.modules) and not page.more
    return answer, "" if is_last or not messages else messages[-1].class_name
