"""What Valkyr costs and how fast it is: workloads, measured from outside through the client SDK. `python -m benchmarks`."""
