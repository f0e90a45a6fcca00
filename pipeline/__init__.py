"""What the user runs: the command line and the Ray driver. The only place that knows ray."""
