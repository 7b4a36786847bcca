"""The executor's side of the breakers: which targets are held back, and what became of calls."""
