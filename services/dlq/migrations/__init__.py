"""The history of the schema `graph_store`."""
