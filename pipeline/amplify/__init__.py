"""`smoothcert amplify`: what a study of amplification says over all its images."""
