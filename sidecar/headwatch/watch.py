"""The watch: drift, canaries, triage and incidents, joined here and nowhere else."""
