"""Modules with `isolation="process"`: each runs in a child process, which may die in any way and takes nobody along.

`calling` is what a slot calls; `watch` follows one run in its child; `pool` keeps children warm; `child` is the program
that a child runs; `frames` is what the two say to each other; `guard` ends what children have started should the
runner be killed.
"""
