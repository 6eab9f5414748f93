"""What molflow achieves and what it costs: ``python -m benchmarks list`` and ``python -m benchmarks run NAME``.

A benchmark is a module whose docstring's first line describes it, with two functions: ``run(*, seed, ...)`` returns
its results as a plain dict, ``tables(results)`` shows them. The parameters of ``run`` are the options it takes.
"""

BENCHMARKS = {
    "solver": "benchmarks.solver",
    "training": "benchmarks.training",
    "qm9-unconditional": "benchmarks.qm9_unconditional",
    "qm9-learning": "benchmarks.learning",
    "qm9-steps": "benchmarks.steps",
    "qm9-targets": "benchmarks.qm9_targets",
    "qm9-rivals": "benchmarks.qm9_rivals",
    "qm9-search": "benchmarks.search_ablation",
    "qm9-doubt": "benchmarks.doubt",
    "throughput": "benchmarks.throughput",
    "qm9-conditions": "benchmarks.conditions",
    "qm9-likelihood": "benchmarks.likelihood",
    "qm9-targets-dft": "benchmarks.targets_dft",
    "oracle-qm9": "benchmarks.oracle_qm9",
    "oracle-xtb": "benchmarks.oracle_xtb",
    "oracle-speed": "benchmarks.oracle_speed",
    "report": "benchmarks.report",
    "image-inverse": "benchmarks.image_inverse",
    "audio-inverse": "benchmarks.audio_inverse",
    "source-gradient": "benchmarks.source_gradient",
    "campaign-kill": "benchmarks.campaign_kill",
    "kills": "benchmarks.kills",
    "soak": "benchmarks.soak",
    "druglike-targets": "benchmarks.druglike_targets",
    "druglike-unconditional": "benchmarks.druglike_unconditional",
    "scaling": "benchmarks.scaling",
    "fuzzing": "benchmarks.fuzzing",
}
