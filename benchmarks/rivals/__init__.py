"""The methods that molflow is compared with, on the same generator, guide and decoding, a module each.

Each has ``solve(problem, generator, guide, *, nfe, seed, chunk, progress) -> Found``: ``nfe`` is the most evaluations
of the velocity field for a molecule, a backward pass counting as two, and none ever sees the evaluator.
"""
