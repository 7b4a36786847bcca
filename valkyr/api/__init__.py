"""Generated from protos/ by `make protos` and at install; only this file is tracked."""
