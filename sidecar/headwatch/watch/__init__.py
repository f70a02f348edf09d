"""The watch: what drift detection, canaries and headwatch's own state say, joined into incidents, here and nowhere else."""
