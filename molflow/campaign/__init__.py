"""Campaigns: many molecules for many targets, designed, verified and kept in a database, that any stop leaves whole.

What is left to do follows from the specification and from what is stored, and from nothing else. So to begin, to go on
after a stop and to find that all is done are the same call. Every result has its place before it is calculated, every
seed follows from that place, and one process writes: a result is stored once or, if the process was killed, not yet.
"""

from molflow.campaign.coordinator import run, status
from molflow.campaign.plan import Status
from molflow.campaign.spec import Spec, SpecError

__all__ = ["Spec", "SpecError", "Status", "run", "status"]
