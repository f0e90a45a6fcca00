"""Files in folders, in S3 and on the Hugging Face Hub: find, list, read, and publish once.

Also disks that are full and temporary folders. What is in a file belongs to the room that reads it.
"""
