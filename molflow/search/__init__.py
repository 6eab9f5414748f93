"""Finding molecules whose readings by the guide are those that are wanted."""

from molflow.search.atlas import Atlas
from molflow.search.problem import POWER, Budget, Found, Problem, Progress
from molflow.search.solve import solve

__all__ = ["POWER", "Atlas", "Budget", "Found", "Problem", "Progress", "solve"]
