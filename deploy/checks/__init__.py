"""Holds the rendered manifests against each other, against the code's settings and protos, and against the contract."""
