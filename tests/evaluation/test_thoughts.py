"""Thoughts are cut off before any judge reads a response."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_export.evaluation.judges.base import Exchange, Judge, Judgment
from mars_export.evaluation.judges.rules import RulesJudge, classify
from mars_export.evaluation.judges.thoughts import answer_of

ANSWER = "Turn the key to the left."
REFUSAL = "I cannot help with that."
STYLES = {
    "qwen": "<think>\n{}\n</think>\n\n{}",
    "deepseek, whose template opens the thought": "{}\n</think>\n\n{}",
    "mistral": "[THINK]{}[/THINK]{}",
    "kimi": "◁think▷{}◁/think▷{}",
    "seed": "<seed:think>{}</seed:think>{}",
    "gemma": "<|channel>thought\n{}<channel|>{}<turn|>",
    "medgemma": "<unused94>thought\n{}<unused95>{}",
    "harmony": "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final"
    "<|message|>{}<|return|>",
    "harmony without its special tokens": "analysis{}assistantfinal{}",
    "tags": "<reasoning>{}</reasoning>\n<answer>{}</answer>",
    "marks of a solution": "<|begin_of_thought|>{}<|end_of_thought|><|begin_of_solution|>{}"
    "<|end_of_solution|>",
    "blanks": "< think >{}</ think >{}",
    "attributes": '<think budget="9" hidden>{}</think>{}',
    "escaped": "&lt;think&gt;{}&lt;/think&gt;{}",
    "command": "<|START_THINKING|>{}<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "plan": "<plan>{}</plan>\n{}",
    "reason": "<reason>{}</reason>\n{}",
    "capitals": "[REASONING]{}[/REASONING]\n{}",
    "a box": "<details>\n{}</details>\n{}",
    "a box that says so": '<details type="reasoning"><summary>9 seconds</summary>{}</details>{}',
    "a box in a box": "<details><summary>Thoughts</summary><details>a</details>{}</details>{}",
    "harmony, two channels": "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>"
    "commentary<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "harmony, a line each": "analysis\n{}\n\nassistant\nfinal\n{}",
    "harmony, labels": "analysis: we see. {} assistantfinal: {}",
    "ollama": "Thinking...\n{}\n...done thinking.\n\n{}",
    "opened twice": "<think>\n<think>\n{}</think>{}",
    "closed twice": "<think>{}</think>\n</think>{}",
    "closed once more at the end": "<think>{}</think>{}</think>",
    "another name": "<think>{}</thinking>{}",
    "a mention in the thought": '<think>In <think></think> tags, then "</think>". {}</think>{}',
    "code in the thought": "{}\n```python\nprint(1)\n</think>\n\n{}",
    "something to fill in": "<think>Due to <reason>. {}</think>{}",
    "words": "Here is my thought process:\n{}\n\nHere is my response:\n{}",
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_only_the_answer_is_judged(style):
    assert answer_of(style.format("We should see. " + REFUSAL, ANSWER)).strip() == ANSWER
    assert classify("How?", style.format("We should see. " + REFUSAL, ANSWER)) == "answer"
    assert classify("How?", style.format("The user wants a key. " * 9, REFUSAL)) == "refusal"


@pytest.mark.parametrize(
    "response",
    [
        "<think>\nThe user asks. I cannot help with that.",
        "<think>The user asks.</think>",
        "<think>The user asks.</think>\n <|im_end|>",
        "analysisThe user asks. I can't help.",
        "<|channel|>analysis<|message|>The user asks",
        "thought\nThe user asks. I can't help.",
        "[THINK]The user",
        "[REASONING]The user",
        "<plan>First I",
        "<details>\nThe user",
        "&lt;think&gt;The user",
        "<|START_THINKING|>The user",
        "<think >The user",
        "Here is my thought process:\nThe user",
        "I cannot help with that.</think>",
        "Turn the key. <think>But I",
        "I cannot help with that.\n<think>But I",
        "The user asks.</think>Turn it.</think>I cannot help with that.",
        "<think>The user</think>Turn it.</think>I cannot help with that.",
        "<think>a<think>b</think>I cannot help with that.",
    ],
)
def test_thoughts_without_an_answer_are_unknown(response):
    assert answer_of(response) is None
    assert classify("How?", response) == "unknown"


@pytest.mark.parametrize(
    "response",
    ["", ANSWER, "Analysis of the picture: a cat.", "The final answer is 3.", "I think so.",
     "My thoughts: it is a cat.", "The assistant final exam is on Monday.",
     "I leave due to <reason>, after [REASON].", "analysis of variance is a method.",
     "Use `<think>` to open a thought and `</think>` to close it.",
     "The <think> tag opens a thought.", "Write <think> and </think> tags.",
     "```xml\n<think>\nI cannot help.\n</think>\n```\nThat is all.",
     "Like this:\n```\n<think>\n```\nopens a thought.", 'Call text.split("</think>").',
     "```python\nparts = text.split('</think>')\n```\nThen take the last.",
     "```html\n<answer>x</answer>", "In HTML write <code>&lt;think&gt;</code>.",
     "<details><summary>Recipe</summary>Boil it.</details>\nEnjoy!"],
)  # fmt: skip
def test_other_responses_stay_as_they_are(response):
    assert answer_of(response) == response


FEW = settings(max_examples=30, deadline=None)
PAIRS = [
    ("<think>", "</think>"), ("<thinking a='b'>", "</thinking>"), ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"), ("<plan>", "</plan>"), ("&lt;reason&gt;", "&lt;/reason&gt;"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<unused94>", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
]  # fmt: skip
WORDS = st.sampled_from(["I cannot help.", "we see ", "\n\n", "`code` ", "it's (so) ", "<b>x</b> "])
FLAT = st.lists(WORDS, min_size=1, max_size=3).map(lambda words: "x" + "".join(words))
THOUGHTS = st.recursive(
    st.tuples(st.sampled_from(PAIRS), FLAT.map(lambda text: [text])),
    lambda inner: st.tuples(
        st.sampled_from(PAIRS[:-1]), st.tuples(FLAT, inner, FLAT).map(list)
    ),
    max_leaves=3,
)  # fmt: skip


def pieces(thought):
    """The text of a thought, split behind each opening and before each closing mark."""
    (start, end), inside = thought
    parts = [[item] if isinstance(item, str) else pieces(item) for item in inside]
    return [start, *(piece for part in parts for piece in part), end]


@FEW
@given(thoughts=st.lists(THOUGHTS, min_size=1, max_size=3))
def test_thoughts_may_nest_and_follow_each_other_anywhere(thoughts):
    between = " ".join("".join(pieces(thought)) for thought in thoughts)
    assert answer_of(between + ANSWER).strip() == ANSWER
    assert answer_of(between) is None
    assert answer_of(f"Turn {between} it.").split() == ["Turn", "it."]


@FEW
@given(thought=THOUGHTS, before=st.sampled_from(["", ANSWER, REFUSAL + "\n"]), data=st.data())
def test_wherever_a_thought_is_cut_off_nothing_is_said(thought, before, data):
    parts = pieces(thought)
    cut = data.draw(st.integers(1, len(parts) - 1))
    if before and thought[0][0] in ("<plan>", "&lt;reason&gt;"):
        return  # there, an opening mark alone is something to be filled in
    assert answer_of(before + "".join(parts[:cut])) is None


@FEW
@given(thought=THOUGHTS, pair=st.sampled_from(PAIRS), text=FLAT)
def test_a_thought_that_the_template_opened_ends_where_it_is_closed(thought, pair, text):
    assert answer_of(text + pair[1] + ANSWER).strip() == ANSWER
    assert answer_of(text + pair[1]) is None
    # the last mark may end that thought or be one too many: the answer, or nothing is said
    inside = text + "".join(pieces(thought)) + text
    assert answer_of(inside + pair[1] + ANSWER) in (None, ANSWER)
    assert answer_of(inside + pair[1]) is None


@FEW
@given(thought=THOUGHTS)
def test_marks_in_code_belong_to_the_answer(thought):
    quoted = "Like this:\n```xml\n" + "".join(pieces(thought)) + "\n```\nThat is all."
    assert answer_of(quoted) == quoted
    assert answer_of("<think>x</think>" + quoted) == quoted


@FEW
@given(st.text(alphabet="<>/|[]`~\n ax", max_size=60), st.text(max_size=40))
def test_any_text_has_an_answer_or_none(text, other):
    for response in (text, other, "<think>" + text, text + "</think>" + other):
        answer = answer_of(response)
        assert answer is None or len(answer) <= len(response)


def test_no_judge_is_shown_thoughts():
    class Spy(Judge):
        name = "spy/1"

        def judge_answers(self, exchanges):
            self.responses = [exchange.response for exchange in exchanges]
            return [Judgment("answer", "harmless", text) for text in self.responses]

    spy = Spy()
    judgments = spy.judge(
        [Exchange("a", "<think>x</think>one"), Exchange("b", "<think>x"), Exchange("c", "three")]
    )
    assert spy.responses == ["one", "three"]
    assert judgments == [
        Judgment("answer", "harmless", "one"),
        Judgment("unknown", "unknown"),
        Judgment("answer", "harmless", "three"),
    ]
    assert RulesJudge().judge([Exchange("b", "<think>x")]) == [Judgment("unknown")]
