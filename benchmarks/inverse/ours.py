"""What `molflow restore` does, one recipe for all tasks: of pictures the posterior mean along the flow, of sound the
mean of levels."""

from __future__ import annotations

from benchmarks.inverse.problem import Method, Problem, Solved
from molflow.inverse.hearing import Listening, listen
from molflow.inverse.posterior import Averaging, average


def of_pictures(problem: Problem, *, seed: int, steps: int) -> Solved:
    """So many steps."""
    found = average(problem.adapter, problem.operator, problem.measured, noise=problem.noise, seed=seed,
                    recipe=Averaging(steps=steps))
    return Solved(found.signal, found.nfe)


def of_sound(problem: Problem, *, seed: int, draws: int) -> Solved:
    """So many draws."""
    found = listen(problem.adapter, problem.operator, problem.measured, noise=problem.noise, seed=seed,
                   recipe=Listening(draws=draws))
    return Solved(found.signal, found.nfe)


PICTURES = Method("molflow", of_pictures,
                  efforts=({"steps": 3}, {"steps": 2 * Averaging.steps}, {"steps": Averaging.steps}))
SOUND = Method("molflow", of_sound, efforts=({"draws": 2}, {"draws": Listening.draws}))
