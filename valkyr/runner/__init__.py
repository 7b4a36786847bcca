"""The runner SDK: leases runs, runs their modules, heartbeats, reports."""
