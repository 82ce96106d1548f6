"""Copies of the whole database in the bucket, sealed; and the way back from bucket and master key.

A copy is a folder `control-plane/<name>/` of parts and a manifest. The parts, in order, are JSON
lines: for each table an object that names it and its columns, then an array for each row. Each
part is compressed and sealed by itself, so no more than one is ever in memory, and none is
anywhere else. The manifest is written last, once all parts have been read back: without it a
folder is no copy.
"""
