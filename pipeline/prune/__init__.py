"""`smoothcert prune`: which runs of an output may go, and how a run is deleted.

What runs take in storage belongs to overview; baselines belong to the history of nights.
"""
