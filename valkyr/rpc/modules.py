"""Protobuf <-> modules of the catalogue, both directions, for the graph store, the executor and clients."""

from __future__ import annotations

from datetime import UTC

from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest
from valkyr.graph import fields
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.model import Dedupe, DedupeScope
from valkyr.rpc.graphs import read_duration, read_retry, retry_to_proto
from valkyr.rpc.values import plain_to_struct, struct_to_plain

_SCOPES = {pb.Dedupe.Scope.Value(scope): scope for scope in DedupeScope}


def read_module(message: pb.ModuleSpec, path: str, problems: fields.Problems) -> CatalogueModule:
    """As the message says it; what cannot be read is added to `problems`."""
    schema = None
    if message.HasField("config_schema"):
        try:
            schema = struct_to_plain(message.config_schema, f"{path}.configSchema")
        except InvalidRequest as error:
            problems.add_all(error.details.violations)
    return CatalogueModule(
        class_name=message.class_name,
        description=message.description,
        config_schema=schema,
        pool=message.pool,
        target=message.target,
        retry=read_retry(message.retry, f"{path}.retry", problems) if message.HasField("retry") else None,
        timeout=read_duration(message.timeout, f"{path}.timeout", problems) if message.HasField("timeout") else None,
        dedupe=_read_dedupe(message.dedupe, f"{path}.dedupe", problems) if message.HasField("dedupe") else None,
        built_in=message.built_in,
        registered_by=message.registered_by,
        updated_at=message.update_time.ToDatetime(tzinfo=UTC) if message.HasField("update_time") else None,
    )


def _read_dedupe(message: pb.Dedupe, path: str, problems: fields.Problems) -> Dedupe:
    scope = _SCOPES.get(message.scope)
    if scope is None:
        problems.add(f"{path}.scope", f"{message.scope} is no known value; takes one of {', '.join(DedupeScope)}")
        scope = DedupeScope.WORKFLOW
    ttl = read_duration(message.ttl, f"{path}.ttl", problems) if message.HasField("ttl") else None
    if ttl is None:
        return Dedupe(scope)
    fields.check_dedupe_ttl(ttl, f"{path}.ttl", problems)
    return Dedupe(scope, ttl)


def module_from_proto(message: pb.ModuleSpec) -> CatalogueModule:
    """Of an answer. InvalidRequest for what cannot be read."""
    problems = fields.Problems()
    module = read_module(message, "module", problems)
    problems.raise_if_any()
    return module


def module_to_proto(module: CatalogueModule, path: str = "module") -> pb.ModuleSpec:
    """LimitExceeded, naming `path`, for a schema that is nested too deep to be carried."""
    message = pb.ModuleSpec(
        class_name=module.class_name,
        description=module.description,
        pool=module.pool,
        target=module.target,
        built_in=module.built_in,
        registered_by=module.registered_by,
    )
    if module.config_schema is not None:
        message.config_schema.CopyFrom(plain_to_struct(module.config_schema, f"{path}.configSchema"))
    if module.retry is not None:
        message.retry.CopyFrom(retry_to_proto(module.retry))
    if module.timeout is not None:
        message.timeout.FromTimedelta(module.timeout)
    if module.dedupe is not None:
        message.dedupe.scope = pb.Dedupe.Scope.Value(module.dedupe.scope)
        message.dedupe.ttl.FromTimedelta(module.dedupe.ttl)
    if module.updated_at is not None:
        message.update_time.FromDatetime(module.updated_at)
    return message
