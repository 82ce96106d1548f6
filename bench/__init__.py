"""The program measured beside something else in one run: `python -m bench.NAME`.

The last line printed is one JSON object (`bench._report`); lines before it are for people.
"""
