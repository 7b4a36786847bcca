"""One file for each workload: `measure(database_url, size)` on an empty database gives what one round gives."""
