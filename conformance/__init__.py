"""Conformance of quantization backends: `README.md` fixes the words in which an expectation is stated."""
