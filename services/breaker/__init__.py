"""The breaker: keeps the state of every target that runs call, so that one outage does not become a thousand failures.

Called by the executor, and by clients to look; calls nobody. A target that never failed has no row; the rows of the
others are the truth for every replica, and the database's clock decides.
"""
