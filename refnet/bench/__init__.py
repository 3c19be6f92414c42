"""Speed and memory beside other implementations, in one run, results checked first."""
