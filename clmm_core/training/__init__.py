"""Local training and evaluation of one device, and the cohort of a host: data, models and losses joined."""
