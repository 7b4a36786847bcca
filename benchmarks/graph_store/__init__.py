"""How long saving, reading and validating take by size: `make bench-graph`, docs/performance/graph_store.md."""
