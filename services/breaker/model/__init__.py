"""The breaker's values and decisions: no I/O and no clock; times come in, decisions go out."""
