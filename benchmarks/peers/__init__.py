"""Valkyr beside others: the same workloads on the same machine, one after another, in turns. `make bench-peers`."""
