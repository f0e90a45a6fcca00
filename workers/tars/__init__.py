"""From a tar to samples, each exactly once, and to their pixels and labels; or an error that says why not.

Which tars a job names belongs to manifests; fetching and publishing files belongs to storage.
"""
