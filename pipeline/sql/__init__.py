"""`smoothcert sql`: DuckDB over the published files of runs, where they lie.

relations.py says which tables there are, answers.py how an answer is printed and written. Questions about certificates
of rectangles, several patches or coarser strides need the rules: they belong to query.
"""
