"""What is to be certified: job and training files, the identity of a run, its shards.

Pure data. Reads files and listings, but loads neither torch, numpy nor ray. What images and checkpoints contain
belongs to workers.
"""
