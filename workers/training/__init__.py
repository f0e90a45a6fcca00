"""From a training file to weights: data, augmentation, recipe, loop, validation, checkpoints and curves.

The forward pass under ablations belongs to votes; starting several training processes belongs to pipeline/finetune.py.
"""
