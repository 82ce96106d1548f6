"""Cells for the tests of the lab."""

from __future__ import annotations

from tests.support.cells import cell, cells_state, start_test_cell

__all__ = ["cell", "cells_state", "start_test_cell"]
