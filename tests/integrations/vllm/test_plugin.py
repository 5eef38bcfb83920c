"""A steered checkpoint gets its worker and scheduler by itself; other models get nothing."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace as Bag

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_export.integrations.vllm import plugin
from mars_export.integrations.vllm.limits import OPTIONS, SCHEDULER, WORKER

RULES = {"sha256": "5eed", "method": "mars"}
CONFIGS = st.sampled_from(
    [
        Bag(hf_config=Bag(steering=RULES)),
        Bag(hf_config=Bag(steering="somebody else's")),
        Bag(hf_config=Bag(steering={"method": "somebody else's"})),
        Bag(hf_config=Bag()),
        Bag(hf_config=None),
        Bag(),
        None,
    ]
)


def engine_args():
    """A class of its own, as vLLM's `EngineArgs`."""

    class EngineArgs:
        def __init__(self, config, worker="auto", scheduler=None, more=None):
            self.config, self.worker_cls, self.scheduler_cls = config, worker, scheduler
            self.additional_config = {} if more is None else more

        def create_model_config(self, *args, **kwargs):
            """Native."""
            self.given = args, kwargs
            return self.config

    return EngineArgs


@given(
    CONFIGS,
    st.sampled_from(["auto", WORKER, "other.Worker", b"pickled"]),
    st.sampled_from([None, SCHEDULER, "other.Scheduler", Bag]),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.integers(1, 3),
    st.lists(st.integers(), max_size=2),
)
def test_steered_checkpoints_alone_are_changed(config, worker, scheduler, more, times, given_too):
    cls = engine_args()
    for _ in range(times):
        plugin.recognize_steered(cls)
    one = cls(config, worker, scheduler, more)
    hf_config = getattr(config, "hf_config", None)
    is_steered = getattr(hf_config, "steering", None) is RULES
    if is_steered and (worker not in ("auto", WORKER) or scheduler not in (None, SCHEDULER)):
        with pytest.raises(ValueError, match=r"steered checkpoint: another --\w+-cls .*leave it"):
            one.create_model_config(*given_too)
    else:
        assert one.create_model_config(*given_too, a=1) is config
        assert one.given == (tuple(given_too), {"a": 1})
    served = (one.worker_cls, one.scheduler_cls, one.additional_config)
    if one.worker_cls == WORKER and worker == "auto":
        assert is_steered
        assert served == (WORKER, SCHEDULER, more | {plugin.SALT: "5eed"})
    elif not is_steered:
        assert served == (worker, scheduler, more)


def test_it_is_wrapped_once_and_looks_as_the_native_method():
    cls = engine_args()
    plugin.recognize_steered(cls)
    wrapped = cls.create_model_config
    plugin.recognize_steered(cls)
    assert cls.create_model_config is wrapped
    assert wrapped.__doc__ == "Native."


def test_the_scheduler_may_be_given_as_a_class():
    cls = engine_args()
    plugin.recognize_steered(cls)
    module, name = SCHEDULER.rsplit(".", 1)
    one = cls(Bag(hf_config=Bag(steering=RULES)), scheduler=type(name, (), {"__module__": module}))
    one.create_model_config()
    assert one.scheduler_cls == SCHEDULER


@pytest.mark.parametrize("lacking", ["worker_cls", "scheduler_cls", "additional_config"])
def test_another_vllm_is_refused_for_steered_checkpoints_only(lacking):
    cls = engine_args()
    plugin.recognize_steered(cls)
    for config in (Bag(hf_config=Bag(steering=RULES)), Bag(hf_config=Bag())):
        one = cls(config)
        delattr(one, lacking)
        if hasattr(config.hf_config, "steering"):
            with pytest.raises(ValueError, match=f"have no {lacking}; .*{OPTIONS}"):
                one.create_model_config()
        else:
            one.create_model_config()
    hashed = cls(Bag(hf_config=Bag(steering=RULES)), more=Bag())
    with pytest.raises(ValueError, match="no dict as additional_config"):
        hashed.create_model_config()


@pytest.mark.parametrize("module", [None, Bag(), Bag(EngineArgs=type("EngineArgs", (), {}))])
def test_a_vllm_without_the_method_is_left_alone(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", module)
    plugin.register()
    assert not hasattr(getattr(module, "EngineArgs", None), "create_model_config")


def test_vllm_finds_the_plugin_and_it_loads_neither_torch_nor_vllm():
    project = Path(__file__).parents[3] / "pyproject.toml"
    entry = tomllib.loads(project.read_text())["project"]["entry-points"]["vllm.general_plugins"]
    module, name = entry["mars_export"].split(":")
    code = f"import sys; from {module} import {name} as register; register(); "
    code += "print({'torch', 'vllm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_guard_names_the_plugin_and_both_options():
    guard = Path(plugin.__file__).parents[2] / "runtime/guard.py"
    texts = [n.value for n in ast.walk(ast.parse(guard.read_text())) if isinstance(n, ast.Constant)]
    (said,) = [t for t in texts if isinstance(t, str) and "--worker-cls" in t]
    assert OPTIONS in said
    assert "plugin mars_export" in said
