"""The solver core: tensors, time and random numbers. It knows no chemistry, no image, no sound."""
