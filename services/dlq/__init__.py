"""The dead letter queue: keeps runs that failed for good, with all that is needed to review, mend and replay them.

Called by the executor's outbox and by clients; calls the executor to requeue, fix and discard. The run's row there is
the authority: what is stored here is the letter, the operator's intent, and what came of it.
"""
