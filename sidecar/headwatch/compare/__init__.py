"""Two deployments, releases, arms or time ranges held side by side, within strata."""
