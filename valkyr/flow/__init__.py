"""The pure core of execution: what may happen to a run and to an execution, decided over plain values, without I/O.

Used by the executor, and by simulators and in-memory runs of graphs alike. `step` takes `events` of one execution over
`facts`, and gives `effects`; `states` names the states, `plan` turns a graph into arrays, `edges` and `joins` hold the
two tables, `attempts` decides what follows the end of a lease, and `advance` carries outcomes through the graph.
"""
