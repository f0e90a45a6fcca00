"""The figures of a run and how complete it is: the table of `certify`, and the commands `runs` and `status`.

Questions about other patches belong to query; whether the votes are right belongs to verify.
"""
