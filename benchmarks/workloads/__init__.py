"""One file for each workload: `measure(database, sizes)` on an empty database gives what one round gives."""
