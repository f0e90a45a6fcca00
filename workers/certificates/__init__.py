"""Votes to certificates: counting votes, and the rules that say when no patch can change a prediction.

Pure arithmetic on arrays. Which ablations a patch touches belongs to ablations; reading stored votes belongs to runs.
"""
