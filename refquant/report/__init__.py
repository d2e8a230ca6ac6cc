"""What quantization did to a model, measured on a text and shown on one page of HTML.

found = compare("Qwen2.5-0.5B", "q4.gguf", "text.txt")     numbers: comparison.py
page(found)                                                 one self-contained file: page.py
python -m refquant report Qwen2.5-0.5B q4 --text text.txt -o report.html
"""

from refquant.report.comparison import Comparison, Layer, Predictions, compare
from refquant.report.page import page

__all__ = ["Comparison", "Layer", "Predictions", "compare", "page"]
