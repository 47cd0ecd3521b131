"""Runs optimizer steps and nothing else."""
