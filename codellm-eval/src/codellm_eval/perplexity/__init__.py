"""Likelihoods: how probable a model finds texts that others wrote."""
