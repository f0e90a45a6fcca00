"""Ray actors that work on shards: started, given shards, listened to, ended; who gets which shard; progress.

What an actor does with a shard belongs to who uses a fleet: certify, studies.
"""
