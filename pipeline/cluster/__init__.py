"""Ray itself: join or start it, what a cluster has, and its errors in one line.

Actors and the shards that they get belong to certify.
"""
