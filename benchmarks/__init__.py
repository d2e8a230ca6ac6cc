"""Measurements of the runtime against llama.cpp: `make bench`. No part of the installed packages."""
