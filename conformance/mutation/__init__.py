"""The mutation check: do the vectors notice when a line of refquant is wrong?

    operators.py   one small fault in a syntax tree: a constant off by one, < for <=, another rounding
    mutants.py     every such fault of the files in scope, with an id that survives moved lines
    coverage.py    which tests run which lines
    trial.py       one mutant in a process of its own: the tests that reach it, until one fails
    session.py     all mutants, a few at a time; score.py counts them
    equivalents.txt  mutants that compute the same as the original, each with the reason

A mutant is *killed* when a test does not pass, when refquant cannot be imported, when a warning shows (vectors are run
with warnings as errors, as all tests here) or when it needs more time or memory than it is given. What is left has
*survived*: a vector is missing.
"""
