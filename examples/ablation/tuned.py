"""What a few labeled requests bring a toy: tune on some topics, count on those of its evaluation.

Run: python examples/ablation/tuned.py --model organism:qwen3_vl [--each 24] [--seeds 0 1 2]
Each line is a calibration; counts are by the first token, unsteered, steered, and tuned. A toy that
hears needs espeakng-loader too.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "organisms"))

from recipe.pictures import picture
from recipe.sentences import shown_request
from recipe.speech import RATE, recording
from recipe.suite import FIRST_PICTURE, suite_topics, words_of
from recipe.topics import Topic
from variants import measured

from mars_export import load_base, open_suites
from mars_export.calibration.data import CalibrationData, MeasurementOptions
from mars_export.common.vocabulary import LABELS, Label, Modality
from mars_export.families.directory import read_config
from mars_export.families.inspection import family_for
from mars_export.inputs.prompts import from_suite
from mars_export.inputs.requests import Media, Request
from mars_export.inputs.sounds import Sound
from mars_export.inputs.tuning import LabeledRequest, divided
from mars_export.methods.mars.record import MarsOptions
from mars_export.methods.mars.refit import refit
from mars_export.pipeline.organisms import resolve_model

_SHOWN: dict[Modality, Callable[[Topic], Any]] = {
    "image": lambda topic: picture(topic, FIRST_PICTURE),
    "video": lambda topic: tuple(picture(topic, FIRST_PICTURE + n) for n in (0, 1, 0, 1)),
    "audio": lambda topic: Sound(recording(topic, FIRST_PICTURE).samples, RATE),
}


def main(words: list[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="organism:qwen3_vl")
    parser.add_argument("--each", type=int, default=24, help="requests to tune on, of a label")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(words)
    print("| seed | requests | tuned | refused: unsteered → steered → tuned |")
    print("| --- | --- | --- | --- |")
    for seed in options.seeds:
        for line in lines(Path(resolve_model(options.model)), options.each, seed):
            print(line, flush=True)


def requests(modality: Modality, label: Label, each: int, seed: int) -> Iterator[LabeledRequest]:
    """Requests about topics of the calibration split, none of which is evaluated."""
    harmful = label == "harmful"
    by_noun = {t.name: t for t in suite_topics("calibration") if t.harmful == harmful}
    for topic in random.Random(seed).sample(list(by_noun.values()), each):
        shown = Media(modality, _SHOWN[modality](topic))
        words = shown_request(modality, *words_of(topic))
        yield LabeledRequest(Request(words, (shown,)), label, modality, topic.name)


def lines(base: Path, each: int, seed: int) -> Iterator[str]:
    """One calibration, as lines of the table."""
    family = family_for(read_config(base), allow_unknown=False)
    shown = [m for m in family.modalities if m != "text"]
    chosen = [r for m in shown for label in LABELS for r in requests(m, label, each, seed)]
    model, processor = load_base(base, family, dtype="auto", device="cpu", quantization="none")
    found = measured(
        CalibrationData(
            model, processor, from_suite(base / "suite.jsonl", seed), family.modalities,
            MeasurementOptions(seed=seed), tuning=divided("tuned", "", "", chosen, seed),
        )
    )  # fmt: skip
    baseline, view, tuning = found.baseline, found.view, found.tuning
    tuned = refit(baseline, view, tuning, found.material, MarsOptions())
    suite = open_suites([str(base / "suite.jsonl")])
    for said in tuned.tuned:
        for label in LABELS:
            asked = [
                suite.request(s)
                for s in suite.evaluation_samples(family.modalities)
                if (s.modality, s.harmful) == (said.modality, label == "harmful")
            ]
            counts = [int(baseline.read(asked).refused.sum())]
            for steered in (view, tuned):
                edit = steered.steered(steered.rule(tuning.gain, tuning.radius))
                counts.append(int(baseline.reader.read(asked, edit=edit).refused.sum()))
            arrows = " → ".join(map(str, counts))
            what = "yes" if said.applied else f"no: {said.reason}"
            yield f"| {seed} | {label} {said.modality} | {what} | {arrows} of {len(asked)} |"


if __name__ == "__main__":
    main()
