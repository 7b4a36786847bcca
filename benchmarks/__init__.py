"""How fast Valkyr is and what it costs, measured from outside through the client SDK: `python -m benchmarks`."""
