"""`smoothcert init MODEL DATA`: a commented job file from what a network and its images say of themselves.

Not covered: keys of a job (manifests/job.py); whether the job can be done, which `smoothcert plan` tells.
"""
