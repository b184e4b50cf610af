"""CLMM: contrastive learning for multimodal human-activity recognition, usable alone in a notebook.

No Flower, no Ray, no command line. `data` turns recordings into windows, `models` and `losses` are the
method, `training` joins them for one device, `federated` sums what devices learnt, `report` shows the result.
"""
