"""Cells for the suites that meet a real server."""

from __future__ import annotations

from tests.support.cells import cell, cells_state, start_test_cell

__all__ = ["cell", "cells_state", "start_test_cell"]
