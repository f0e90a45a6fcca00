"""`smoothcert certify` and `plan`: job to run, the driver, the actors, who gets which shard, progress.

What an actor computes belongs to workers/certifier.py; the table at the end belongs to overview.
"""
