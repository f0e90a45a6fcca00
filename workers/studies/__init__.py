"""Studies: what is measured about images besides their votes, one file per kind; their files and their worker.

The settings belong to manifests/studies.py; choosing images and printing answers to pipeline/.
"""
