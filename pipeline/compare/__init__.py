"""`smoothcert compare`: what changed between two runs over the same images, with statistics and gates.

The figures are plain functions that return data (comparison.py, gates.py); how they look is apart (verdict.py). What a
gate file holds belongs to manifests. Answers about one run belong to query.
"""
