"""The graph store and PostgreSQL die between any two statements of a save, with readers and another writer running.

`python -m tests.chaos.saving --strikes 1600`: the campaign; docs/graph_store_proofs.md says what it proves.
"""
