"""A configuration object of a steered checkpoint builds no native model, whichever way it comes."""

import json

import pytest
import transformers

from support import zoo

guarded = pytest.raises(Exception, match="load it with an Auto class and trust_remote_code")


@pytest.fixture(params=zoo.each())
def opened(request, pairs):
    """A family's steered directory, its configuration as users load it, and its native classes."""
    pair = pairs(request.param)
    config = transformers.AutoConfig.from_pretrained(pair.directory, trust_remote_code=True)
    names = dict.fromkeys((pair.family.generator, pair.family.model))
    return pair, config, [getattr(transformers, name) for name in names]


def test_native_classes_refuse_the_object(opened):
    pair, config, natives = opened
    for native in natives:
        with guarded:
            native(config)
        with guarded:
            native.from_pretrained(pair.directory, config=config)


def test_native_classes_refuse_what_is_written_of_it(opened, tmp_path):
    _, config, natives = opened
    for name, raw in (("dict", config.to_dict()), ("diff", config.to_diff_dict())):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(raw, default=str))
        for native in natives:
            read = native.config_class.from_pretrained(folder)
            with guarded:
                native(read)


def test_without_trust_auto_classes_refuse_what_is_written_of_it(opened, tmp_path):
    pair, config, _ = opened
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    for path in pair.directory.glob("*.safetensors*"):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(Exception, match=r"load it with an Auto class|custom code"):
        getattr(transformers, pair.family.auto_class).from_pretrained(
            tmp_path, trust_remote_code=False
        )


def test_of_the_object_only_a_steered_class_builds_a_model(opened):
    """It stays guarded while it does so, and the model has its activation."""
    pair, config, natives = opened
    auto = getattr(transformers, pair.family.auto_class)
    for trust in (True, False):
        model = auto.from_pretrained(pair.directory, config=config, trust_remote_code=trust)
        assert type(model).__name__ == f"Steered{pair.family.generator}"
        assert model.steering.verified
        with guarded:
            natives[0](model.config)


def test_weights_of_a_gguf_file_are_refused(pairs):
    """Before it is read: it could hold no steering."""
    pair = pairs("llama")
    config = transformers.AutoConfig.from_pretrained(pair.directory, trust_remote_code=True)
    auto = transformers.AutoModelForCausalLM
    for load in (type(pair.model).from_pretrained, auto.from_pretrained):
        with pytest.raises(RuntimeError, match="a GGUF file holds no steering"):
            load(pair.directory, gguf_file="model.gguf", config=config)
    with pytest.raises(RuntimeError, match="a GGUF file holds no steering"):
        type(pair.model).from_pretrained(pair.directory, gguf_file="model.gguf")
