"""The methods that molflow is compared with, on the same prior, operator, noise and signals, a module each.

Each has ``solve(problem, *, seed, ...) -> Solved``; what else it takes is stated with its source. A knob that is to be
set for each task is chosen from the module's ``GRID``, by the mean PSNR or SNR of validation signals that are not those
reported; with ``EFFORTS`` a method spends more or less.
"""
