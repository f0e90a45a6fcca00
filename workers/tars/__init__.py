"""A tar to samples, each exactly once, to pixels and labels, or an error that says why not.

Which tars a job names belongs to manifests; fetching and publishing files belongs to storage.
"""
