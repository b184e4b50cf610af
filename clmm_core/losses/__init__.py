"""Contrastive losses over window identity, one paper a file, all called as `loss(views, window_ids)`."""
