"""What stands between a saved graph and a run of it: expressions compiled into a plan, inputs and configs put together.

The executor and `valkyr.testing` share it, so that a test sees what a run would be handed. No I/O.
"""
