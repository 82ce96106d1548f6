"""One patch and one backup, killed at each of their boundaries, the victims in turn: a cut through
the kill matrix, whose whole is `make kill-matrix`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from managed.domain.jobs import JobKind
from tests.kill_matrix.boundaries import boundaries_of
from tests.kill_matrix.lanes import managed_cells
from tests.kill_matrix.plans import rotations
from tests.kill_matrix.running import carry_out, clean_run
from tests.kill_matrix.servers import ManagedCell
from tests.kill_matrix.victims import Victim

pytestmark = [
    pytest.mark.cell,
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def server(cells_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedCell]:
    with managed_cells(1, cells_state, tmp_path_factory.mktemp("matrix")) as servers:
        yield servers[0]


# With these turns the runner's is the moment at which a run is at work.
@pytest.mark.parametrize(("kind", "turn"), [(JobKind.PATCH, 6), (JobKind.BACKUP, 2)])
def test_a_job_that_is_killed_at_every_boundary_ends_well_with_its_work_done_once(
    server: ManagedCell, kind: JobKind, turn: int
) -> None:
    boundaries = boundaries_of(kind, clean_run(kind, server))
    carried = carry_out(rotations(boundaries)[turn], server)
    assert carried.problems == []
    assert [str(each.kill.boundary) for each in carried.kills if each.processes is None] == []
    assert len({each.kill.victim for each in carried.kills if each.processes}) == len(Victim)
