"""The other methods that restore any signal with a prior of it."""

from __future__ import annotations

from benchmarks.inverse.problem import Method, linear
from benchmarks.inverse.rivals import dflow, flowchef, ot_ode, pnp_flow

ON_A_PRIOR = {
    "dflow": Method("D-Flow", dflow.solve, efforts=dflow.EFFORTS),
    "ot_ode": Method("OT-ODE", ot_ode.solve, ot_ode.GRID, ot_ode.EFFORTS, linear),
    "pnp_flow": Method("PnP-Flow", pnp_flow.solve, pnp_flow.GRID, pnp_flow.EFFORTS),
    "flowchef": Method("FlowChef", flowchef.solve, flowchef.GRID, flowchef.EFFORTS),
}
