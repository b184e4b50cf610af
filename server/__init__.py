"""The ServerApp: stages, rounds, the split and the results of a run."""
