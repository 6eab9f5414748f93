"""A package, so that ``python -m tests.fuzzing`` is this one: some libraries install a ``tests`` of their own."""
