"""Stands for a training script."""

print("nothing to learn here")
