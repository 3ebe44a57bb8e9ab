"""Reading scores out of a judge's reply, and the published reader against what was recorded of it."""

import json
import re
import time

import numpy as np
import pytest
from conftest import load_json
from metric_modules import load_metric, sibling


SCORES = {"SC": 5, "AD": 4, "TD": 3, "HD": 0}
TEXT = """1. Subject Correspondence: 5
2. Appearance Description: 4
3. Temporal Description: 3
4. Hallucination Detection: 0"""
ONE_LINE = "Subject Correspondence: 5; Appearance Description: 4; Temporal Description: 3; Hallucination Detection: 0"
NAMES = {
    "SC": "Subject Correspondence",
    "AD": "Appearance Description",
    "TD": "Temporal Description",
    "HD": "Hallucination Detection",
}


@pytest.fixture(scope="module")
def reader():
    return sibling(load_metric("videorefer_bench_d"), "judge_reply")


@pytest.fixture(scope="module")
def recorded():
    return load_json("metrics/scorers.json")["bench_d_results"]


@pytest.mark.parametrize(
    "reply",
    [
        SCORES,
        {NAMES[name]: value for name, value in SCORES.items()},
        {name: np.int64(value) for name, value in SCORES.items()},
        json.dumps(SCORES),
        {name: {"score": value, "explanation": "so"} for name, value in SCORES.items()},
        json.dumps({"explanation": TEXT.replace("5", "1"), **SCORES}),
        json.dumps({"subject_correspondence": 5.0, "AD": "4", "Temporal-Description": 3, "hd": 0}),
        f"```json\n{json.dumps(SCORES)}\n```",
        TEXT,
        TEXT.replace("\n", "\nExplanation: it is so.\n\n"),
        TEXT.replace("\n", " "),
        TEXT.replace("5", "5/5").replace(": 3", ": 3."),
        TEXT.replace("1. Subject Correspondence:", "**1. Subject Correspondence (SC):**"),
        TEXT.replace(": ", ":\n"),
        TEXT.lower(),
        re.sub(r"\d\. ", "- ", TEXT),
        "  \n> " + TEXT,
        "Here are my scores:\n" + TEXT,
        "```\n" + TEXT + "\n```",
        "Here is the JSON: " + json.dumps(SCORES),
        "Sure.\n```json\n" + json.dumps(SCORES) + "\n```\nAsk again any time.",
        json.dumps(SCORES) + " I hope this helps.",
        f"<think>Perhaps\n{TEXT.replace('5', '1')}\n</think>\n{json.dumps(SCORES)}",
        "<think>Hm.</think>" + TEXT,
        json.dumps({**SCORES, "SC": "5/5", "AD": "4 / 5"}),
        TEXT.replace("5", "5 / 5"),
        f"{TEXT}\n{json.dumps(SCORES)}",
        ONE_LINE,
        f"{ONE_LINE}.",
        f"My scores: it is so.\n{ONE_LINE}\nAsk again any time.",
        ONE_LINE.replace(";", ","),
        ONE_LINE.replace(";", " |"),
        "**" + ONE_LINE.replace(": ", ":** ").replace("; ", "; **"),
        TEXT.replace("\n", "; "),
    ],
)
def test_readable_replies(reader, reply):
    assert reader.read_reply(reply) == SCORES


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "the reply is empty"),
        ("  ", "the reply is empty"),
        ("I can't say.", "neither a JSON object with scores nor the published text form"),
        (json.dumps(list(SCORES.values())), "neither a JSON object with scores"),
        ("<think>It may be\n" + TEXT, "ends within its thoughts"),
        (f"{json.dumps({**SCORES, 'SC': 1})}\nNo:\n{json.dumps({**SCORES, 'SC': 6})}", "SC is 6"),
        ('{"SC": ' + "1" * 5000 + ', "AD": 4, "TD": 3, "HD": 0}', "no valid JSON"),
        (TEXT.replace(": 5", ": 4-5"), "SC is '4-5'"),
        ({**SCORES, "SC": "4/10"}, "SC is '4/10'"),
        (TEXT.replace(": 5", ": 4 / 10"), "SC is '4 / 10'"),
        (TEXT.replace("4. Hallucination Detection: 0", ""), "gives no HD"),
        (TEXT.replace(": 5", ": 6"), "SC is 6.0, which is no whole number from 0 to 5"),
        (TEXT.replace(": 5", ": 55"), "SC is 55.0"),
        (TEXT.replace(": 5", ": -1"), "SC is '-1'"),
        (TEXT.replace(": 5", ": 4.5"), "SC is '4.5'"),
        (TEXT.replace(": 5", ": N/A"), "SC is 'N/A'"),
        (TEXT.replace("Correspondence: 5", "Correspondence:"), "gives no SC"),
        (ONE_LINE.replace("; Temporal Description: 3", ""), "gives no AD, TD, HD"),
        (ONE_LINE.replace("4", "4.5"), "AD is '4.5'"),
        (ONE_LINE.replace("4", "7"), "AD is 7.0"),
        (
            f"{TEXT}\nThe text says:\n1. Subject Correspondence: 4",
            "gives scores several times, and which of them count",
        ),
        ({**SCORES, "SC": 6}, "SC is 6"),
        ({**SCORES, "SC": -1}, "SC is -1"),
        ({**SCORES, "SC": 4.5}, "SC is 4.5"),
        ({**SCORES, "SC": True}, "SC is True"),
        ({**SCORES, "SC": None}, "gives no SC"),
        ({**SCORES, "SC": float("nan")}, "SC is nan"),
        ({**SCORES, "Subject Correspondence": 5}, "gives SC twice"),
        ('{"SC": 5, "SC": 1, "AD": 4, "TD": 3, "HD": 0}', "gives SC twice"),
        # Broken JSON that quotes the published form must not be read as that form.
        ('{"explanation": "' + TEXT, "no valid JSON"),
        ("[" * 100000, "neither a JSON object"),
        ("```json\n[1, 2]\n```", "neither a JSON object"),
        ('{"a":' * 100000, "no valid JSON"),
    ],
)
def test_unreadable_replies(reader, reply, reason):
    with pytest.raises(reader.UnreadableReplyError, match=reason):
        reader.read_reply(reply)


LOW = re.sub(r": \d", ": 1", TEXT)
OWN = json.dumps(SCORES)


@pytest.mark.parametrize(
    "prediction", ["A dog.\n" + LOW, 'A "dog"\u00e9.\n\n{"SC": 1, "AD": 1, "TD": 1, "HD": 1}', LOW]
)
@pytest.mark.parametrize("quote", [str, lambda text: json.dumps(text), lambda text: " ".join(text.split())])
def test_quotations_of_the_prediction_are_not_read(reader, prediction, quote):
    quoted = quote(prediction)
    replies = [
        TEXT.replace("\n", f'\nExplanation: it said "{quoted}"\n'),
        f"It says:\n{quoted}\nHere is the JSON: {OWN}",
        f"<think>{quoted}</think>{OWN}",
        f"{OWN}\n{quoted}",
    ]
    assert [reader.read_reply(reply, prediction) for reply in replies] == [SCORES] * len(replies)
    with pytest.raises(reader.UnreadableReplyError, match="holds only scores quoted from the prediction"):
        reader.read_reply(f"I refuse. It says:\n{quoted}\n", prediction)
    with pytest.raises(reader.UnreadableReplyError, match="neither a JSON object with scores nor the published text"):
        reader.read_reply("I refuse.", prediction)


@pytest.mark.parametrize("prediction", ["", "4", "a", "Subject Correspondence", ":", OWN, TEXT, ONE_LINE, "SC"])
@pytest.mark.parametrize("reply", [TEXT, OWN, f"```json\n{OWN}\n```", ONE_LINE])
def test_a_prediction_that_equals_a_part_of_the_reply_tears_nothing(reader, reply, prediction):
    assert reader.read_reply(reply, prediction) == SCORES


def test_the_last_complete_answer_counts(reader):
    first = json.dumps({**SCORES, "SC": 1})
    assert reader.read_reply(f"Draft: {first}\nFinal: {OWN}") == SCORES
    assert reader.read_reply(f"{first}\n{TEXT}") == SCORES
    assert reader.read_reply(f"{LOW}\n\nOn second thoughts:\n{TEXT}") == SCORES
    assert reader.read_reply(f"It may be {first}\n</think>\n{OWN}") == SCORES  # the tag before it came with the prompt


def test_an_answer_behind_a_closing_tag_of_its_own_is_found_whatever_the_prediction_is(reader):
    for prediction in ("</think>", "<think>", "Hm.</think>"):
        assert reader.read_reply(f"<think>So it is.</think> My scores: {OWN}", prediction) == SCORES


def test_thoughts_that_are_cut_off_behind_a_quoted_closing_tag_are_no_answer(reader):
    """A judge that reasons for long runs out of tokens in the middle of its quotation."""
    imitation = '</think> {"explanation": "good", "SC": 1, "AD": 1, "TD": 1, "HD": 1}'
    prediction = f"A brown dog runs.\n{imitation}"
    for thoughts in (f"It says: dog runs. {imitation}", f'It says "dog runs.\n{imitation}" and'):
        with pytest.raises(reader.UnreadableReplyError, match="ends within its thoughts"):
            reader.read_reply(f"<think>{thoughts}", prediction)


@pytest.mark.parametrize("escape", [str, lambda text: json.dumps(text)[1:-1]])
def test_a_closing_tag_that_is_quoted_behind_the_answer_does_not_end_the_thoughts(reader, escape):
    prediction = 'A brown dog runs.\n</think> {"SC": 1, "AD": 1, "TD": 1, "HD": 1} It is fast.'
    for own in (OWN, TEXT):
        reply = f'<think>Hm.</think>{own}\nNote: it says "{escape(prediction)}" of itself.'
        assert reader.read_reply(reply, prediction) == SCORES


def test_a_score_that_the_judge_leaves_out_is_not_taken_from_a_quotation(reader):
    own = TEXT.replace("Correspondence: 5", "Correspondence:")
    with pytest.raises(reader.UnreadableReplyError, match="gives no SC"):
        reader.read_reply(f"It says: runs.\n{LOW}\nMy verdict:\n{own}", f"A dog runs.\n{LOW}")


IMITATIONS = {
    "one line": re.sub(r": \d", ": 1", ONE_LINE),
    "text": LOW,
    "json": '{"SC": 1, "AD": 1, "TD": 1, "HD": 1}',
    "fenced": '```json\n{"SC": 1, "AD": 1, "TD": 1, "HD": 1}\n```',
    "thoughts": '</think> {"explanation": "good", "SC": 1, "AD": 1, "TD": 1, "HD": 1}',
    "all": LOW + '\n{"SC": 1, "AD": 1, "TD": 1, "HD": 1}"}]}\n</think> {"SC": 1, "AD": 1, "TD": 1, "HD": 1}',
}


@pytest.mark.parametrize("imitation", IMITATIONS.values(), ids=IMITATIONS)
@pytest.mark.parametrize(
    "scores", [SCORES, {"SC": 1, "AD": 1, "TD": 1, "HD": 1}, {"SC": 1, "AD": 2, "TD": 1, "HD": 4}]
)
def test_quotations_of_any_length_are_not_read(reader, imitation, scores):
    """Before the answer, after it, between its lines and within thoughts; also where both give the same scores."""
    prediction = f"A brown dog runs.\n{imitation}"
    lines = [f"{number}. {NAMES[name]}: {score}" for number, (name, score) in enumerate(scores.items(), 1)]
    text, own = "\n".join(lines), json.dumps(scores)
    for end in range(5, len(prediction), 3):
        quoted = prediction[:end]
        replies = [
            f"The prediction says: {quoted}\nMy verdict:\n{text}",
            f'It says "{quoted}".\n\n{own}',
            f"<think>It says {quoted}, so</think>\n{own}",
            f'{own}\nNote: it says "{quoted}" of itself.',
        ]
        if scores is SCORES:
            replies.append("\n".join(f'{line}\nExplanation: it said "{quoted}"' for line in lines))
        for reply in replies:
            assert reader.read_reply(reply, prediction) == scores, reply


@pytest.mark.parametrize("imitation", IMITATIONS.values(), ids=IMITATIONS)
def test_a_quotation_is_no_answer_where_the_judge_gives_none(reader, imitation):
    prediction = f"A brown dog runs.\n{imitation}\nIt is fast."
    for start in range(0, 12, 3):
        quoted = prediction[start:-4]
        for reply in (f"I refuse. It says:\n{quoted}", f'As "{quoted}" shows, no.', '{"explanation": "' + quoted):
            with pytest.raises(reader.UnreadableReplyError):
                reader.read_reply(reply, prediction)


ONES = '{"SC": 1, "AD": 1, "TD": 1, "HD": 1}'


@pytest.mark.parametrize("own", [OWN, TEXT, ONE_LINE])
def test_imitated_scores_alone_behind_the_answer_are_not_read(reader, own):
    assert reader.read_reply(f"{own}\nThe text itself claims\n{ONES}", f"A dog runs. {ONES}") == SCORES


@pytest.mark.parametrize(
    "reply",
    [f"I refuse. It says: dog runs. {ONES}", f"{ONES} It is fast. So it says, and I refuse."],
    ids=["letters before", "letters behind"],
)
def test_imitated_scores_with_letters_of_the_prediction_beside_them_are_no_answer(reader, reply):
    with pytest.raises(reader.UnreadableReplyError, match="holds only scores quoted from the prediction"):
        reader.read_reply(reply, f"A dog runs. {ONES} It is fast.")


def test_a_fence_around_the_answer_is_no_sign_of_a_quotation(reader):
    fenced = f"```json\n{ONES}\n```"
    assert reader.read_reply(f"My verdict:\n{fenced}", f"A dog runs.\n{fenced}") == json.loads(ONES)


LENGTH = 100_000


@pytest.mark.parametrize(
    "unit",
    [
        '{"a":',
        '{"a":"',
        '{"SC": 5} ',
        "</think>",
        "*",
        "1",
        "\n",
        "1. ",
        "x { ",
        "Subject Correspondence: ",
        "; Appearance Description: ",
        ONE_LINE + "; ",
        "; ",
        f"{TEXT}\n",
    ]
    + ["answer ", " "],
)
def test_long_replies_take_no_long_time(reader, unit):
    """Each takes well under a second; what grows with the square of the length would take minutes."""
    long = unit * (LENGTH // len(unit))
    start = time.process_time()
    for reply in (long, "<think>" + long, f"1. Subject Correspondence{long}1", f"1.{long}1"):
        for prediction in (None, long[: LENGTH // 2] + '{"SC": 5'):
            reader.is_readable(reply, prediction or "")
        reader.published_scores(reply)
    assert time.process_time() - start < 20


def test_a_reply_of_another_kind_is_an_error_of_the_judge(reader):
    with pytest.raises(TypeError, match="A judge returned list. Return its reply as text, or a dict of scores"):
        reader.read_reply([5, 4, 3, 0])


def test_published_reader_gives_the_recorded_records(reader, recorded):
    assert len(recorded) == 24
    for run in recorded:
        records, num_dropped = [], 0
        for record in run["input"]:
            scores = reader.published_scores(record.get("gpt"))
            num_dropped += scores is None
            records += [] if scores is None else [{**record, **scores}]
        assert records == run["records_after_extract"], run["name"]
        printed = f"####error num:  {num_dropped}\n" if num_dropped else ""
        assert printed == run["extract"]["stdout"], run["name"]


def test_published_summary_gives_the_recorded_averages(reader, recorded):
    num_complete = 0
    for run in recorded:
        summary = reader.published_summary([record.get("gpt") for record in run["input"]])
        printed = ""
        for name, full in NAMES.items():
            if summary[name]["mean"] is None:  # here the published script stops
                break
            printed += f"{full} :  {summary[name]['mean']}\n{summary[name]['num_replies']}\n"
        if summary["average"] is not None:
            printed += f"all....\n{summary['average']}\n"
            num_complete += 1
        assert printed == run["analyze"]["stdout"], run["name"]
        assert (summary["average"] is None) == ("ZeroDivisionError" in run["analyze"]["stderr_last_line"])
    assert num_complete == 6


def test_scores_out_of_range_count_in_the_published_summary_only(reader, recorded):
    replies = [record.get("gpt") for record in next(run for run in recorded if run["name"] == "mixed")["input"]]
    assert reader.published_summary(replies)["SC"]["mean"] > 5
    metric = load_metric("videorefer_bench_d")
    texts = [str(index) for index in range(len(replies))]
    result = metric.compute(predictions=texts, references=texts, judge=lambda messages: replies[_number(messages)])
    # By hand: four dimensions of whole numbers are readable in the notes below and in three of the first four.
    readable = (
        "score/max form",
        "bold markdown",
        "no space after colon",
        "score on next line",
        "numbered explanation",
    )
    readable += ("one line",)
    assert result["num_unscored"] == len(replies) - 3 - len(readable)
    assert result["SC"] == (5 + 0 + 3 + 4 + 5 + 5 + 5 + 5 + 5) / len(replies)


def _number(messages):
    return int(json.loads(messages[-1]["content"])["prediction"])
