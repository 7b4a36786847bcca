"""The executor's tables, read and written: one module for each thing that a transaction does."""
