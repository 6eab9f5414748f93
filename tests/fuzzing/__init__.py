"""What reads strangers' files and text, fed with mutations that atheris and libFuzzer choose by the code they reach.

``python -m tests.fuzzing NAME --runs 100000``; NAME is one of `tests.fuzzing.targets.TARGETS`, or ``all``.
"""
