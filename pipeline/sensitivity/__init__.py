"""`smoothcert sensitivity`: what a study of sensitivity says over all its images."""
