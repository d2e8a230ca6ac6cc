"""What every method costs a trained model: `make quality` writes docs/quality.md and docs/quality.svg.

    text.py        windows of tokens: some to calibrate with, others to be judged by
    network.py     the model over all windows at once, every matrix behind one hook
    rows.py        what is measured: one Row a method and format
    fits.py        how the matrices that share an input are quantized
    measure.py     perplexity, divergence, layer error, and how sure of them one is
    results.py     one JSON file, written after every row
    claims.py      the orderings that the papers promise, asserted against that file
    layer_claims.py   those that are about one layer;  layers.py measures them on layers of the models
    page.py        the tables of docs/quality.md;  plot.py draws docs/quality.svg

No part of the installed packages.
"""
