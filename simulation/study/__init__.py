"""`clmm study`: a grid of whole runs (splits x seeds x settings x methods), and the tables and figures that compare them."""
