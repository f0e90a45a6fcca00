"""`smoothcert query`: which predictions no patch can change, answered from stored votes, without the model.

The rules themselves belong to workers/certificates.
"""
