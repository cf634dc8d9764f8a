"""Programs that nobody vouches for, run against tests in a sandbox.

Two processes share the work of one program, each in a box of its own (``box``): the *program's* executes the generated
code and answers calls (``program``), the *checker's* holds the tests and the reference and makes them (``checker``).
Only plain values travel between them (``wire``), so that a program can't see expected results, reach an assertion or
speak for the checker; it can pass in one way, by returning the right values. ``judge`` runs many of them.

``wire``, ``program``, ``checker`` and ``oracles`` run inside a box, where there is no other module of this project.
"""
