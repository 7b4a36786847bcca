"""The graph store: keeps workflows, versions of their graphs, and who changed what.

Called by clients and by the executor; calls nobody. A version is one row that never changes, so that a reader sees a
whole graph or none; the rows of nodes, edges and modules beside it hold the latest version.
"""
