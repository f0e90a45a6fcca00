"""`smoothcert attack`: its answers, by patches and by small changes of whole images.

The attacks belong to workers/studies/; what certificate and attack say together to pipeline/bracket.py.
"""
