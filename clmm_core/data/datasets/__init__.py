"""Loaders, one data set a file: subjects, their recordings, and the window of their field."""
