"""Which calls a channel repeats by itself."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import ServiceDescriptor

from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.api.executor.v1 import executor_pb2
from valkyr.api.graph.v1 import graph_pb2
from valkyr.rpc.channel import IDEMPOTENT_READS

_SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (breaker_pb2, "BreakerService"),
        (dlq_pb2, "DeadLetterQueueService"),
        (executor_pb2, "ExecutorService"),
        (graph_pb2, "GraphStoreService"),
    )
)
_READING = ("Get", "List", "Find", "Resolve", "Validate", "Diff", "Merge", "Wait")


@pytest.mark.parametrize("service", _SERVICES, ids=lambda service: service.name)
def test_all_unary_reads_of_a_service_are_repeated_and_nothing_else(service: ServiceDescriptor) -> None:
    reads = {
        method.name for method in service.methods if method.name.startswith(_READING) and not method.server_streaming
    }
    assert set(IDEMPOTENT_READS[service.full_name]) == reads
