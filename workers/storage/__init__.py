"""Files in folders and in S3: find, list, read, and publish once. Elsewhere (web servers, the Hugging Face Hub, Google
Cloud Storage, Azure) files are only read.

Also disks that are full and temporary folders. What is in a file belongs to the room that reads it.
"""
