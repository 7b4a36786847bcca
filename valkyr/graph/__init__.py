"""The graph value: model, canonical document, validation. Pure; used by clients and by the graph store alike."""
