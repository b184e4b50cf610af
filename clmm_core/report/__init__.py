"""A run's results: what is stored, the figures that follow from it, and the page that shows it."""
