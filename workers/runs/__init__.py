"""What a run is on disk: every name, record and schema, and how its published files are read.

Making votes belongs to votes and certifier.py; the figures that people see belong to pipeline.
"""
