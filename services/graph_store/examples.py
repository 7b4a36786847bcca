"""What workflows can be asked for by example: the JSON shape of a workflow and of its latest graph, as columns."""

from __future__ import annotations

from services.chassis.example.resource import (
    Document,
    Field,
    Group,
    Labels,
    Many,
    Resource,
    Unsearchable,
    boolean,
    duration,
    enum,
    integer,
    number,
    text,
    time,
    uuid,
)
from valkyr.graph.model import EdgeKind, Join

COLUMNS = """w.namespace, w.id, w.name, w.description, w.labels, w.version, w.content_hash, w.created_date,
    w.last_modified_date, w.archived, w.last_modified_by_name"""
ROWS = "graph_store.workflow AS w"
SCOPE = "w.namespace = $1::text"
_OF_WORKFLOW = "{0}.namespace = w.namespace AND {0}.workflow_id = w.id"

_RETRY: dict[str, Field] = {
    "maxAttempts": integer("(k.options #>> '{retry,maxAttempts}')::int"),
    "backoffBaseDelay": duration("(k.options #>> '{retry,backoffBaseDelay}')::interval"),
    "backoffMaxDelay": duration("(k.options #>> '{retry,backoffMaxDelay}')::interval"),
}
_NODE: dict[str, Field] = {
    "nodeId": text("k.node_id", nullable=False),
    "label": text("k.label", nullable=False, blank_is_absent=True),
    "position": Group({"x": number("k.position_x"), "y": number("k.position_y")}),
    "retry": Group(_RETRY),
    "timeout": duration("(k.options ->> 'timeout')::interval"),
    "deadline": duration("(k.options ->> 'deadline')::interval"),
    "pool": text("coalesce(k.options ->> 'pool', 'default')", nullable=False),
    "priority": integer("coalesce((k.options ->> 'priority')::int, 0)", nullable=False),
    "join": enum("coalesce(k.options ->> 'join', 'ALL')", Join, nullable=False),
    "taskId": uuid("k.id", nullable=False),
}
_EDGE: dict[str, Field] = {
    "edgeId": text("c.edge_id", nullable=False),
    "source": text("s.node_id", nullable=False),
    "target": text("t.node_id", nullable=False),
    "condition": text("c.condition", nullable=False, blank_is_absent=True),
    "kind": enum("c.kind", EdgeKind, nullable=False),
    "connectionId": uuid("c.id", nullable=False),
}
# Not a join, which would stand in the way of what asks for a class alone.
_NODE_ID = "(SELECT k.node_id FROM graph_store.task AS k WHERE k.namespace = m.namespace AND k.id = m.task_id)"

# A config that was saved has passed the validator, which refuses what jsonb could not hold. A module_data is any JSON,
# and often the config as v1 had it.
_CONFIG = "coalesce(m.config::jsonb, graph_store.as_json(m.module_data))"
_MODULE: dict[str, Field] = {
    "nodeId": text(_NODE_ID, nullable=False),
    "className": text("m.class_name", nullable=False),
    "moduleData": text("m.module_data"),
    "config": Document(_CONFIG),
    "target": text("m.target", nullable=False, blank_is_absent=True),
    "moduleId": uuid("m.id", nullable=False),
}

WORKFLOWS = Resource(
    name="workflow",
    fields={
        "id": uuid("w.id", nullable=False),
        "namespace": text("w.namespace", nullable=False),
        "name": text("w.name", orderable=True, blank_is_absent=True),
        "description": text("w.description", nullable=False, blank_is_absent=True),
        "labels": Labels("w.labels"),
        "version": integer("w.version", nullable=False, orderable=True),
        "contentHash": text("w.content_hash", nullable=False),
        "createTime": time("w.created_date", nullable=False, orderable=True),
        "updateTime": time("w.last_modified_date", nullable=False, orderable=True),
        "archived": boolean("w.archived", nullable=False),
        "nodes": Many("graph_store.task AS k", _OF_WORKFLOW.format("k"), _NODE),
        "edges": Many(
            """graph_store.connection AS c
            JOIN graph_store.task AS s ON s.namespace = c.namespace AND s.id = c.source_task_id
            JOIN graph_store.task AS t ON t.namespace = c.namespace AND t.id = c.target_task_id""",
            _OF_WORKFLOW.format("c"),
            _EDGE,
        ),
        "modules": Many("graph_store.module AS m", _OF_WORKFLOW.format("m"), _MODULE),
        "settings": Unsearchable("they stand in each version's document; read it with GetGraph"),
    },
    key=("id",),
    default_order="createTime desc",
)
