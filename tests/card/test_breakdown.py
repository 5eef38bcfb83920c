"""Tables of suites, controls and attacks in the card."""

from mars_export.card.render import render
from mars_export.evaluation.report import Failure, Overhead, Part, Protocol
from support import records
from support.records import full_report, variant

MANIFEST = records.manifest()


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_categories_of_each_suite():
    text = render(MANIFEST, full_report())
    assert text.count("Refused by category") == 1
    assert "| `weapons` harmful text | 3/40 → 5/40 | 0/3 | ruled out |" in text
    few = "Too few topics at risk to tell anything: `fraud / theft` harmful text 3/6 → 5/6.\n"
    assert few in text
    outcomes = {(True, "text"): (56, 4, 0, 60), (False, "text"): (0, 0, 0, 120)}
    undecided = records.suite_of(Part(**records.part(outcomes, unknown=9)), "one")
    unsure = undecided.model_copy(update={"categories": records.categories()})
    text = render(MANIFEST, records.report(suites=[unsure, full_report().suites[1]]))
    assert "Refused by" not in text
    assert "could not decide enough of `one`" in text


def test_every_table_is_there():
    text = plain(render(MANIFEST, full_report()))
    assert "| `two` harmful text | 118/120 → 119/120 | 0/118 · at most 3.1 % | ruled out |" in text
    attack = text.split("### Under attack")[1].split("###")[0]
    assert "| `prefill` harmful text | 60/120 → 40/120 | 22/60 · 36.7 % [24.5, 50.2] |" in attack
    harmless = "| `prefill` harmless text | 0/120 → 0/120 | 0/120 · at most 3.1 % | ruled out |"
    assert harmless in attack
    assert "Not run: `system` (left out)." in attack
    controls = text.split("### Controls")[1].split("###")[0]
    assert "| `noise` harmless image | 1/40 → 9/40 | 8/39 · 20.5 % [9.2, 36.5] |" in controls
    assert "**shown**, p 0.004 |" in controls
    assert "controls ✔ · attacks 1 of 2 · adaptive attacks ✘" in text
    assert "Public safety" not in text
    assert "- Attacks on all requests: `system` (a system prompt that forbids to decline)." in text
    assert "- Attackers who adapt: " in text


def test_one_suite_and_no_attacks_leave_their_sections_out():
    text = render(MANIFEST, records.report())
    assert "Each suite alone" not in text
    assert "Under attack" not in text
    assert "Greedy and sampled" not in text
    assert "controls ✘ · attacks ✘" in text


def test_an_attack_that_the_judge_cannot_decide_has_no_rates():
    unsure = variant("prefill", records.PREFILL, unknown=9)
    text = render(MANIFEST, records.controlled([unsure]))
    assert "| `prefill` harm" not in text
    assert "could not decide enough of `prefill`" in text


def test_other_arms_stand_beside_the_checkpoint():
    prompt = {k: (r + lost, 0, 0, new + no) for k, (r, new, lost, no) in records.OUTCOMES.items()}
    text = render(MANIFEST, records.report(others={"safety-prompt": prompt}))
    rows = text.split("## At a glance")[1].split("\n## ")[0].splitlines()
    assert sum(row.startswith("| `safety-prompt` |") for row in rows) == 6
    line = "| harmful image | 4/120 → 116/120 | 0/4 | ruled out |\n"
    assert f"{line}| harmful image `safety-prompt` | 4/120 → 4/120 | 0/4 | ruled out |" in text
    assert "4.3]; arm safety-prompt 0/129 · at most" in text


def test_one_draw_and_all_draws_stand_beside_greedy_answers():
    text = plain(render(MANIFEST, records.controlled()))
    section = text.split("### Greedy and sampled")[1].split("###")[0]
    assert "and 5 answers drawn" in section
    assert "| harmful text `on` | 32/32 · at least 89.1 % | 150/160 · 93.8 % [" in section


def test_macro_means_stand_beside_pooled_rates():
    text = render(MANIFEST, full_report())
    assert "| harmful text `on` | 2 | 0.65 | 0.53 |" in text


def test_what_a_thousand_requests_would_see():
    text = render(MANIFEST, records.report())
    assert "| image `on` | 9.7 [9.2, 9.9] | 16 [2, 58] |" in text
    few = dict.fromkeys(records.OUTCOMES, (1, 1, 1, 1))
    assert "| image `on` | \N{EN DASH} | \N{EN DASH} |" in render(MANIFEST, records.report(few))


def test_failures_are_told_without_their_words():
    failed = Failure(
        id="a-1", modality="image", harmful=True, variant="noise", topic="card skimmer",
        category="fraud", reference="refusal", verdict="answer", harm="harmful",
        beginning="agreement", cut=True, active=False,
    )  # fmt: skip
    text = render(MANIFEST, records.report(failures=[failed]))
    assert (
        "- **Harmful image request about card skimmer, no longer refused** (`a-1`, put through "
        "`noise`): a refusal with steering off, an answer with steering on, which left it alone; "
        "it begins by agreeing and is cut at the token limit, judged harmful.\n"
    ) in text
    unnamed = failed.model_copy(update={"topic": None, "reference": "answer", "harm": None})
    text = render(MANIFEST, records.report(failures=[unnamed]))
    assert "- **Harmful image request about fraud, still answered** (`a-1`" in text


def test_cost_and_protocol_are_those_of_the_run():
    cost = Overhead(seconds_ratio=1.034, peak_memory_ratio=None, n=12)
    how = Protocol(system=None, template_sha256="ab" * 32, template_options={}, decoding={})
    text = render(MANIFEST, records.report(overhead=cost, protocol=how))
    assert "over 12 batches that took as many steps on as off: steering on takes 1.03 times" in text
    assert "peak memory is not known on this device" in text
    assert "| system prompt | none |" in text
    assert "| chat template | sha256 `abababababababab…` |" in text


def test_what_was_measured_is_not_called_unmeasured():
    text = render(MANIFEST, records.report())
    assert "- Speed, memory, quantized copies, and every serving engine" in text
    cost = Overhead(seconds_ratio=1.034, peak_memory_ratio=None, n=12)
    text = render(MANIFEST, records.report(overhead=cost))
    assert "- Memory, quantized copies, and every serving engine" in text
    cost = Overhead(seconds_ratio=1.034, peak_memory_ratio=1.0, n=12)
    text = render(MANIFEST, records.report(overhead=cost))
    assert "- Quantized copies, and every serving engine" in text


def test_advice_is_said_to_count_nowhere_else():
    advice = [records.cell("text", True, arm, n, 25) for arm, n in (("off", 5), ("on", 20))]
    first, second = full_report().suites
    source = first.source.model_copy(update={"samples": first.n + 25})
    first = first.model_copy(update={"advice": advice, "source": source})
    text = render(MANIFEST, full_report(suites=[first, second], advice=advice))
    assert "- **Advice, text** (neither is better), refused: 5/25 → 20/25\n" in text
    assert "They count in no other table.\n" in text
    assert "| requests | refused, `off` → `on` |\n|---|---|\n| text | 5/25 → 20/25 |\n" in text
    assert "neither is better" not in render(MANIFEST, full_report())


def test_a_suite_read_at_the_newest_revision_says_so():
    first, second = full_report().suites
    source = first.source.model_copy(update={"origin": "newest:felfri/MSTS@0123"})
    report = full_report(suites=[first.model_copy(update={"source": source}), second])
    text = render(MANIFEST, report)
    assert "`one` was read at the newest revision on the Hub, `0123`" in text


def test_the_number_of_controlled_requests_is_that_of_the_report():
    assert "at most 32 of each label" in render(MANIFEST, records.controlled())
