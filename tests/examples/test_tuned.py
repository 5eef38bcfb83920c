"""The toy's requests to tune on are about nothing that its evaluation asks."""

import tuned
from recipe.suite import suite_topics

from mars_export.inputs.tuning import divided


def test_they_are_of_other_topics_than_the_evaluation():
    each = [
        request
        for modality in ("image", "video")
        for label in ("harmful", "harmless")
        for request in tuned.requests(modality, label, 12, 0)
    ]
    evaluated = {topic.name for topic in suite_topics("evaluation")}
    assert not {request.topic for request in each} & evaluated
    counts = divided("toy", "", "", each, 0).counts(each)
    assert counts == {m: {"harmful": 12, "harmless": 12} for m in ("image", "video")}
