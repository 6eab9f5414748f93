"""Quantum-chemistry calculations on molecules: nothing in them is learned, so nothing in them can be fooled.

One module a program. Every answer is a `molflow.oracles.record.Calculation` with the values it is about. This package
re-exports nothing and loads no program before its first calculation.
"""
