"""Query by example on toys: a resource with a field of every kind, its tables, and a list request for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from google.protobuf import json_format, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import DESCRIPTOR as STRUCT

from services.chassis.example.resource import (
    Document,
    Field,
    Group,
    Labels,
    Many,
    Resource,
    Unsearchable,
    boolean,
    columns_of,
    duration,
    enum,
    integer,
    long,
    number,
    text,
    time,
    uuid,
)
from valkyr.api.common.v1.common_pb2 import DESCRIPTOR as COMMON


class State(StrEnum):
    READY = "READY"
    BROKEN = "BROKEN"


WHEELS: dict[str, Field] = {"size": integer("w.size"), "maker": text("w.maker", nullable=False)}
PARTS: dict[str, Field] = {
    "className": text("p.class_name", nullable=False),
    "target": text("p.target", nullable=False, blank_is_absent=True),
    "wheels": Many("public.wheel AS w", "w.part_id = p.id", WHEELS),
}
TOYS = Resource(
    name="toy",
    fields={
        "id": uuid("t.id", nullable=False),
        "name": text("t.name", orderable=True),
        "note": text("t.note", nullable=False, blank_is_absent=True),
        "count": integer("t.count", orderable=True),
        "revision": long("t.revision", orderable=True),
        "weight": number("t.weight", orderable=True),
        "broken": boolean("t.broken", orderable=True),
        "createTime": time("t.created_date", nullable=False, orderable=True),
        "endTime": time("t.ended_at", orderable=True),
        "took": duration("t.took", orderable=True),
        "state": enum("t.state", State, nullable=False, orderable=True),
        "ownerId": uuid("t.owner_id"),
        "labels": Labels("t.labels"),
        "config": Document("t.config"),
        "size": Group({"width": integer("t.width"), "height": integer("t.height")}),
        "parts": Many("public.part AS p", "p.toy_id = t.id", PARTS),
        "picture": Unsearchable(),
    },
    key=("id",),
    default_order="createTime desc",
)

TABLES = (
    """create table public.toy (id uuid primary key, shelf text not null default 'a', name text,
        note text not null default '', count int, revision bigint, weight float8, broken boolean,
        created_date timestamptz not null default now(), ended_at timestamptz, took interval,
        state varchar(20) not null default 'READY', owner_id uuid, labels jsonb not null default '{}', config jsonb,
        width int, height int)""",
    """create table public.part (id int primary key, toy_id uuid not null, class_name text not null,
        target text not null)""",
    "create table public.wheel (part_id int not null, size int, maker text not null)",
)


def _request_class() -> Any:
    """`message ListToysRequest`, as a list request is laid out."""
    pool = DescriptorPool()
    for known in (timestamp_pb2.DESCRIPTOR, STRUCT, COMMON):
        pool.AddSerializedFile(known.serialized_pb)
    file = FileDescriptorProto(name="toys.proto", package="toys", syntax="proto3")
    file.dependency.extend([STRUCT.name, COMMON.name])
    message = file.message_type.add(name="ListToysRequest")
    kinds: tuple[tuple[str, Any, bool], ...] = (
        ("namespace", FieldDescriptorProto.TYPE_STRING, False),
        ("example", ".google.protobuf.Struct", False),
        ("matcher", ".valkyr.api.common.v1.Matcher", False),
        ("order_by", FieldDescriptorProto.TYPE_STRING, False),
        ("time_ranges", ".valkyr.api.common.v1.TimeRange", True),
        ("page_size", FieldDescriptorProto.TYPE_INT32, False),
        ("page_token", FieldDescriptorProto.TYPE_STRING, False),
    )
    for i, (name, kind, repeated) in enumerate(kinds, 1):
        field = message.field.add(name=name, number=i)
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if isinstance(kind, str):
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, kind
        else:
            field.type = kind
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("toys.ListToysRequest"))


ListToysRequest = _request_class()


def to_be_asked(message: Any, resource: Resource) -> dict[str, Any]:
    """What was answered as an example: its JSON without what cannot be asked for."""
    answered = json_format.MessageToDict(message)
    return {name: _asked(value, resource.fields[name]) for name, value in answered.items() if _is_asked(resource, name)}


def _is_asked(resource: Resource | Many | Group, name: str) -> bool:
    return not isinstance(resource.fields[name], Unsearchable)


def _asked(value: Any, field: Field) -> Any:
    match field:
        case Group():
            return {name: _asked(inner, field.fields[name]) for name, inner in value.items() if _is_asked(field, name)}
        case Many():
            return [
                {name: _asked(inner, field.fields[name]) for name, inner in item.items() if _is_asked(field, name)}
                for item in value
            ]
        case _:
            return value


def undescribed(resource: Resource | Many | Group, descriptor: Any) -> set[str]:
    """Paths that a message has and its description has not, or the other way round, lists and objects included."""
    answered = {field.json_name: field for field in descriptor.fields}
    found = set(answered) ^ set(resource.fields)
    for name in set(answered) & set(resource.fields):
        inner = resource.fields[name]
        if isinstance(inner, Many | Group):
            found |= {f"{name}.{path}" for path in undescribed(inner, answered[name].message_type)}
    return found


def every_way_of_asking(resource: Resource) -> Iterator[dict[str, Any]]:
    """JSON of requests that between them touch every column of a resource: by null, in lists, in every order."""
    nulls = {name: None for name, field in resource.fields.items() if not isinstance(field, Unsearchable)}
    yield {"example": nulls}
    yield {"example": nulls, "matcher": {"matchAny": True}}
    for name, field in resource.fields.items():
        if isinstance(field, Many):
            yield {"example": {name: [{inner: None for inner in field.fields if _is_asked(field, inner)}]}}
    for path, column in columns_of(resource.fields):
        if column.orderable or path in resource.key:
            yield {"orderBy": path}
            yield {"orderBy": f"{path} desc"}


def asking(example: Mapping[str, Any] | None = None, **fields: Any) -> Any:
    """A ListToysRequest from its JSON: `asking({"name": "x"}, matcher={"matchAny": True}, pageSize=5)`."""
    return json_format.ParseDict({"example": dict(example or {}), **fields}, ListToysRequest())
