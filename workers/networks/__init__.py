"""A job's network, built with timm and loaded from any checkpoint file, or an error that says why it does not fit.

Nothing in a checkpoint is ever run. How a network votes belongs to votes; where files come from belongs to storage.
"""
