"""What a run takes is told before a weight is read, and what cannot fit ends in one line."""

import pytest
import transformers

from mars_export.common.errors import ExportError
from mars_export.evaluation.suite import HARMFUL_ONLY
from mars_export.families import placement
from mars_export.families.memory import BatchSize, Memory, Weights
from mars_export.families.placement import Placement
from mars_export.families.room import UNKNOWN
from mars_export.pipeline import capacity
from mars_export.pipeline.capacity import fitted, in_bytes, spread_over
from support import bases

GB = 10**9
LARGE = Memory(Weights(140 * GB, {"bfloat16": 140 * GB}, 2 * GB, 140 * GB), "bfloat16",
               transformers.LlamaConfig())  # fmt: skip
BATCH = BatchSize(16, 500)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bases.save_whole_base(tmp_path_factory.mktemp("base") / "tiny")


def with_room(monkeypatch, **sizes):
    for module in (capacity, placement):
        monkeypatch.setattr(module, "room_on", lambda device: sizes[device.split(":")[0]])
    there = {"0": sizes["cuda"], "1": sizes["cuda"], "cpu": sizes["cpu"]}
    monkeypatch.setattr(placement, "free_bytes", lambda asked: asked or there)


def test_a_dry_run_tells_and_makes_nothing(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = bases.command("--model", base, "--output", "out", "--dry-run", "--batch-size", 4)
    assert (done.code, done.out) == (0, "")
    told = next(line for line in done.errors if line.startswith("memory: "))
    assert " of weights (float32), about " in told
    assert " for 4 requests of " in told
    assert told.endswith(" free")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_ends_in_one_line_before_work(base, tmp_path, monkeypatch):
    with_room(monkeypatch, cpu=10**5, cuda=0)
    asked = ("--model", base, "--output", tmp_path / "out", "--display", "none")
    done = bases.command(*asked)
    assert (done.code, done.out) == (2, "")
    (line,) = done.errors
    assert "does not fit: its weights take " in line
    assert "cpu has 100.0 kB free; use --device-map auto" in line
    assert "--dtype bfloat16 (" in line
    assert list(tmp_path.iterdir()) == []
    done = bases.command(*asked, "--device-map", "auto")
    assert done.code == 2
    assert "its largest layer takes " in done.errors[0]
    assert "use --device-map" not in done.errors[0]


def test_a_gpu_that_is_not_there_is_no_matter_of_size(base):
    asked = ("--model", base, "--device-map", "auto", "--max-memory", "7=70GiB,cpu=200GiB")
    done = bases.command(*asked, "--dry-run")
    assert (done.code, done.out) == (2, "")
    assert done.errors[-1].startswith("mars-export: error: --max-memory: there is no GPU 7; ")


def test_harmful_requests_alone_are_refused_before_work(base):
    done = bases.command("--model", base, "--suite", "xstest-unsafe", "--dry-run")
    assert (done.code, done.out) == (2, "")
    assert done.errors == [f"mars-export: error: the suite xstest-unsafe {HARMFUL_ONLY}"]


def test_a_device_map_fills_gpus_then_memory_then_the_disk(monkeypatch):
    with_room(monkeypatch, cuda=40 * GB, cpu=30 * GB)
    where = Placement(device="cuda")
    shares = spread_over(LARGE, {"0": 40 * GB, "1": 40 * GB, "cpu": 30 * GB})
    assert shares == {"0": 38 * GB, "1": 40 * GB, "cpu": 30 * GB, "disk": 32 * GB}
    told = fitted([LARGE], BATCH, where)
    assert "weights on 0: 38.0 GB, 1: 40.0 GB, cpu: 30.0 GB, disk: 32.0 GB" in told
    assert "requests fit" not in told
    assert "the longest request alone may not fit" in fitted([LARGE], BatchSize(1, 10**6), where)
    large = where.model_copy(update={"max_memory": {"0": 200 * GB}})
    assert fitted([LARGE], BATCH, large).endswith("weights on 0: 140.0 GB")
    told = fitted([LARGE, LARGE], BATCH, large)
    assert told.startswith("memory: 280.0 GB of weights")
    assert "weights on 0: 196.0 GB, disk: 84.0 GB" in told


def test_one_device_holds_all_or_the_run_ends(monkeypatch):
    with_room(monkeypatch, cuda=141 * GB, cpu=30 * GB)
    assert fitted([LARGE], BATCH, "cuda").endswith("cuda has 141.0 GB free")
    few = fitted([LARGE], BatchSize(64, 2000), "cuda")
    assert "requests fit at once, so batches may be made smaller" in few
    with pytest.raises(ExportError, match=r"take 140\.0 GB in bfloat16, and cpu has 30\.0 GB free"):
        fitted([LARGE], BATCH, "cpu")


def test_where_the_system_does_not_tell_nothing_is_made_up(monkeypatch):
    with_room(monkeypatch, cuda=0, cpu=UNKNOWN)
    assert fitted([LARGE], BATCH, "cpu").endswith("tokens; nothing says what is free")


def test_processes_hold_a_part_each(monkeypatch):
    with_room(monkeypatch, cuda=40 * GB, cpu=30 * GB)
    monkeypatch.setenv("WORLD_SIZE", "4")
    split = Placement(device="cuda:1", split=True)
    assert fitted([LARGE], BATCH, split).endswith(
        "; 35.0 GB on each of 4 devices; cuda:1 has 40.0 GB free"
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ExportError, match=r"70\.0 GB in bfloat16 on each of 2 devices"):
        fitted([LARGE], BATCH, split)


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    with_room(monkeypatch, cuda=0, cpu=300 * GB)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert fitted([LARGE], BATCH, "cpu").endswith("cpu has 150.0 GB free for each process")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ExportError, match=r"and cpu has 75\.0 GB free for each process"):
        fitted([LARGE], BATCH, "cpu")


def test_options_of_a_device_map_need_one(base):
    for words, why in (
        (("--max-memory", "cpu=3GB"), "given with --device-map auto"),
        (("--max-memory", "3GB", "--device-map", "auto"), "for example 0=20GiB,cpu=60GiB"),
        (("--offload-folder", "x"), "given with --device-map auto"),
    ):
        done = bases.command("--model", base, *words)
        assert done.code == 2
        assert why in done.errors[0]
        assert words[0] in done.errors[0]


def test_sizes_are_in_decimal_units():
    sizes = (999, 10**6, 16_500_000_000, 2 * 10**12)
    assert [in_bytes(size) for size in sizes] == ["1.0 kB", "1.0 MB", "16.5 GB", "2.0 TB"]


def test_a_server_places_its_own_model(tmp_path):
    words = ("--engine", "endpoint", "--device-map", "auto", "--suite", "xstest")
    done = bases.command("evaluate", tmp_path, *words)
    assert done.code == 2
    assert done.errors[-1].endswith("--engine transformers: a server places its own model")
