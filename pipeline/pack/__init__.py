"""`smoothcert pack`: class folders, Parquet or a CSV of paths become the tars of a WebDataset.

Here belong the kinds of sources, the order of images, the tars and the index beside them. Not here: reading tars
(workers/tars/) and index files (manifests/index_file.py).
"""
