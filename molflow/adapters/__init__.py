"""Flows of pictures and of sound on the same solver core: nothing in ``molflow.flow`` is changed for them.

An `Adapter` makes a flow of any model: `plain` takes a velocity u(t, x) of one tensor. Here that of white noise of
standard deviation 0.5 about 0.2, whose flow is known, restored from every other sample:

.. code-block:: python

    import torch
    from molflow.adapters import Adapter, plain
    from molflow.inverse.operators import Masked
    from molflow.inverse.posterior import average

    def velocity(t, x):  # E[x_1 - x_0 | x_t = x] of times t (B,) and x (B, 1, 64)
        t = t[:, None, None]
        return 0.2 + (0.25 * t - (1 - t)) / (0.25 * t**2 + (1 - t) ** 2) * (x - 0.2 * t)

    flow, known = Adapter(plain(velocity), (1, 64)), torch.arange(64)[None, None] % 2 == 0
    measured = known * flow.sample(3)
    print(average(flow, Masked(known), measured, noise=0.05).signal.shape)
"""

from molflow.adapters.adapter import Adapter, plain

__all__ = ["Adapter", "plain"]
