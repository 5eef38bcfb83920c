import hashlib
import json
import subprocess
import sys
from collections import Counter
from importlib.resources import files

from PIL import Image, ImageChops

from mars_export.evaluation.overlap import overlap
from mars_export.evaluation.suites.builtin import CLIP_FRAMES, packaged_suite, typographic
from mars_export.inputs.prompts import packaged as packaged_prompts


def texts(suite):
    return [s.prompt for s in suite.samples if s.modality == "text"]


def test_forty_of_each_label_in_three_modalities():
    suite = packaged_suite()
    counts = Counter((s.modality, s.harmful) for s in suite.samples)
    assert set(counts.values()) == {40}
    assert len(counts) == 6
    assert len({s.id for s in suite.samples}) == 240
    assert len(suite.evaluation_samples(("text", "image", "video"))) == 240


def test_no_overlap_with_the_calibration_prompts():
    prompts = texts(packaged_suite())
    assert overlap(packaged_prompts().prompts, prompts).near == 0
    for index, prompt in enumerate(prompts):
        assert overlap(prompts[:index] + prompts[index + 1 :], [prompt]).near == 0


def test_pictures_show_the_request_and_nothing_else():
    suite = packaged_suite()
    text, image, video = suite.samples[:3]
    (picture,) = suite.request(image).pictures
    assert ImageChops.difference(picture, typographic(text.prompt)).getbbox() is None
    frames = suite.request(video).pictures
    assert len(frames) == CLIP_FRAMES
    assert all(ImageChops.difference(picture, frame).getbbox() is None for frame in frames)
    assert text.prompt not in image.prompt + video.prompt


def test_every_request_fits_on_its_picture():
    white = Image.new("RGB", (512, 512), "white")
    for prompt in texts(packaged_suite()):
        box = ImageChops.difference(typographic(prompt), white).getbbox()
        assert box is not None
        assert min(box[0], box[1], 512 - box[2], 512 - box[3]) >= 20


def test_digest_is_stable_within_and_across_processes():
    code = "from mars_export.evaluation.suites.builtin import *; print(packaged_suite().sha256)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == packaged_suite().sha256


def test_suites_judges_and_numbers_do_without_torch():
    code = (
        "import sys, mars_export.evaluation.suite, mars_export.evaluation.suites.builtin as p,"
        "mars_export.evaluation.aggregate, mars_export.evaluation.journal,"
        "mars_export.evaluation.job, mars_export.evaluation.judges.rules;"
        "s = p.packaged_suite(); s.request(s.samples[1]);"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_provenance_names_the_file_that_ships():
    folder = files("mars_export.evaluation.suites") / "data"
    listed = json.loads((folder / "builtin.provenance.json").read_text("utf-8"))
    raw = (folder / "builtin.jsonl").read_bytes()
    entry = listed["files"]["builtin.jsonl"]
    labels = Counter(json.loads(line)["harmful"] for line in raw.decode().splitlines())
    assert listed["license"] == "Apache-2.0"
    assert entry["sha256"] == hashlib.sha256(raw).hexdigest()
    assert (entry["harmful"], entry["harmless"]) == (labels[True], labels[False])
