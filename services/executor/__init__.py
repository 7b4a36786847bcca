"""The executor: records executions of saved workflows and drives every run of them to an end that somebody can see.

Called by clients. Calls the graph store (versions and graphs, each version once). Its own pool of runners is the runner
SDK's worker inside this process. Owns the schema `executor`.
"""
