"""What the first of several processes tells the others to run."""

from contextlib import nullcontext

import pytest

from mars_export.common.errors import ExportError
from mars_export.families.processes import Processes
from mars_export.pipeline import shared
from mars_export.pipeline.shared import Task, assist, dismiss, together

ran = []


def task(_tick):
    ran.append("here")
    return len(ran)


def test_a_process_alone_runs_a_task_itself(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ran.clear()
    assert together(Task(tmp_path, task), print) == 1
    dismiss(Processes())


class Told(Processes):
    """The second of two processes, which is told what another tells."""

    def received(self):
        return self.store.pop(0)


class First(Processes):
    """The first of two, which notes what it tells."""

    def first(self, value):
        self.store.append(value)
        return value


def test_others_run_what_the_first_tells_where_they_see_what_it_works_on(tmp_path, monkeypatch):
    ran.clear()
    told = []
    first = First(0, 2, store=told)
    monkeypatch.setattr(shared, "joined", lambda: nullcontext(first))
    assert together(Task(tmp_path, task), print) == 1
    dismiss(first)
    assist(Told(1, 2, store=list(told)))
    assert ran == ["here", "here"]
    away = told[0]._replace(directory=tmp_path / "away", run=b"is not even read")
    with pytest.raises(ExportError, match=r"process 1 sees no .*away; processes on several mach"):
        assist(Told(1, 2, store=[away]))
