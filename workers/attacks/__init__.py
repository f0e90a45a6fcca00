"""Attacks: how patches, and small changes of whole images, change what a classifier says.

An attack bounds the truth from above; certificates bound it from below. The optimisers are those of a library.
"""
