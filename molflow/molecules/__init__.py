"""What a molecule is: tensors, conversion to RDKit and ASE, files, metrics.

This package re-exports nothing, so that `molflow.molecules.batch` and `.elements` can be imported on a machine
without RDKit and ASE.
"""
