"""What one machine does: from the bytes of a tar to votes, certificates and a published file.

certifier.py ties the rooms together. Nothing here knows Ray, other machines or the command line: that is pipeline.
"""
