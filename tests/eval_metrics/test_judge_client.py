"""A judge behind a real HTTP server on loopback: replies, faults, pauses, cache, and the count of requests."""

import json
import threading
import time

import pytest
from judge_server import JudgeServer
from metric_modules import load_metric, sibling


pytest.importorskip("openai")

MODEL = "judge-2024-01-01"
TEXT = """1. Subject Correspondence: 4
2. Appearance Description: 3
3. Temporal Description: 2
4. Hallucination Detection: 1"""
FAST = {"retry_delay_seconds": 0.01, "max_retries": 2, "timeout_seconds": 5.0}


def scores(*values):
    return dict(zip(("SC", "AD", "TD", "HD"), values, strict=True))


GOOD = json.dumps({"explanation": "fine", **scores(5, 4, 3, 2)})


@pytest.fixture
def metric():
    return load_metric("videorefer_bench_d")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def ask(metric, server, predictions, **options):
    references = ["the reference"] * len(predictions)
    options = {"base_url": server.url, "model": MODEL, **FAST, **options}
    return metric.compute(predictions=predictions, references=references, return_per_sample=True, **options)


def test_every_kind_of_reply_and_fault_and_a_second_run_from_the_cache(metric, tmp_path):
    """Good JSON, published text, garbage, 429 with Retry-After, time-out, dropped connection, broken answers."""
    script = {
        "json": lambda n: GOOD,
        "text": lambda n: TEXT,
        "garbage": lambda n: "I would rather not.",
        "out of range": lambda n: json.dumps(scores(5, 5, 5, 9)),
        "limited": lambda n: {"status": 429, "headers": {"Retry-After": "0.3"}} if n == 0 else GOOD,
        "slow once": lambda n: {"sleep": 4, "text": GOOD} if n == 0 else GOOD,
        "dropped once": lambda n: {"drop": True} if n == 0 else GOOD,
        "failing once": lambda n: {"status": 503} if n == 0 else GOOD,
        "no completion once": lambda n: {"body": b"<html>"} if n == 0 else GOOD,
        "always dropped": lambda n: {"drop": True},
        "refused": lambda n: {"status": 413, "error": {"message": "too long"}},
    }
    with JudgeServer(lambda prediction, n: script[prediction](n)) as server:
        first = ask(metric, server, list(script), cache_dir=tmp_path, timeout_seconds=1.5)
        given = {name: sample["scores"] for name, sample in zip(script, first["per_sample"], strict=True)}
        good = scores(5, 4, 3, 2)
        expected = dict.fromkeys(script, good) | {"text": scores(4, 3, 2, 1)}
        expected |= dict.fromkeys(("garbage", "out of range", "always dropped", "refused"))
        assert given == expected
        assert first["num_unscored"] == 4
        assert first["average"] == pytest.approx((6 * 3.5 + 2.5) / 11)
        assert first["average_scored"] == pytest.approx((6 * 3.5 + 2.5) / 7)
        num_asked = {name: server.asked(name) for name in script}
        once = dict.fromkeys(("json", "text", "garbage", "out of range", "refused"), 1)
        assert num_asked == dict.fromkeys(script, 2) | once | {"always dropped": 3}
        assert first["usage"]["num_requests"] == sum(num_asked.values()) == 5 + 5 * 2 + 3
        # Nine replies arrived, each of 100 and 20 tokens.
        assert (first["usage"]["prompt_tokens"], first["usage"]["completion_tokens"]) == (900, 180)
        assert first["usage"]["models"] == [MODEL]
        assert len(list(tmp_path.glob("*.json"))) == 7

        second = ask(metric, server, list(script), cache_dir=tmp_path)
        # Only what got no scores is asked for again.
        assert {name: server.asked(name) - n for name, n in num_asked.items()} == dict.fromkeys(script, 0) | {
            "garbage": 1,
            "out of range": 1,
            "always dropped": 3,
            "refused": 1,
        }
        assert second["usage"]["num_cached"] == 7
        assert second["usage"]["prompt_tokens"] == 200
        assert [sample["scores"] for sample in second["per_sample"]] == list(given.values())


def test_retry_after_goes_before_the_own_pause(metric):
    limited = {"status": 429, "headers": {"Retry-After": "0.4"}}
    with JudgeServer(lambda prediction, n: limited if n == 0 else GOOD) as server:
        result = ask(metric, server, ["a"])
        assert result["num_unscored"] == 0
        assert 0.4 <= server.times[1] - server.times[0] < 2


def test_a_server_that_asks_for_an_hour_is_not_waited_for(metric):
    limited = {"status": 429, "headers": {"Retry-After": "3600"}}
    with JudgeServer(lambda prediction, n: limited) as server:
        result = ask(metric, server, ["a"])
    assert (result["num_unscored"], len(server.requests)) == (1, 1)
    assert "RateLimitError" in result["unscored"][0]["reason"]


def test_retry_after_is_read_in_both_forms(metric):
    seconds_until = sibling(metric, "judge_client")._seconds_until
    assert seconds_until("7") == 7.0
    in_a_minute = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 55 < seconds_until(in_a_minute) <= 60
    assert seconds_until("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert seconds_until("soon") is None
    assert seconds_until(None) is None


def test_what_is_sent(metric):
    with JudgeServer(lambda prediction, n: GOOD) as server:
        ask(metric, server, ["a"], max_tokens=77)
    request = server.requests[0]
    assert (request["model"], request["temperature"], request["max_tokens"]) == (MODEL, 0.0, 77)
    schema = request["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["required"] == ["explanation", "SC", "AD", "TD", "HD"]
    assert schema["schema"]["properties"]["SC"] == {"type": "integer", "enum": [0, 1, 2, 3, 4, 5]}
    assert json.loads(request["messages"][1]["content"]) == {"reference": "the reference", "prediction": "a"}


def test_a_server_without_schemas_is_asked_for_the_published_text(metric, tmp_path):
    with JudgeServer(lambda prediction, n: {"text": TEXT, "refuse_schema": True}) as server:
        result = ask(metric, server, ["a", "b", "c"], concurrency=1, cache_dir=tmp_path)
        assert [sample["scores"] for sample in result["per_sample"]] == [scores(4, 3, 2, 1)] * 3
        # The schema is tried once; afterwards the server is known not to take it.
        assert ["response_format" in request for request in server.requests] == [True, False, False, False]
        assert "1. Subject Correspondence: <score>" in server.requests[1]["messages"][0]["content"]
        assert ask(metric, server, ["a", "b", "c"], cache_dir=tmp_path)["usage"]["num_requests"] == 0
        assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 422])
def test_one_item_that_is_refused_with_the_schema_changes_nothing_for_the_others(metric, status):
    def script(prediction, n):
        return {"status": status, "error": {"message": "too long"}} if (prediction, n) == ("b", 0) else GOOD

    with JudgeServer(script) as server:
        result = ask(metric, server, ["a", "b", "c"], concurrency=1)
        assert result["num_unscored"] == 0
        assert ["response_format" in request for request in server.requests] == [True, True, False, True]


def test_a_refusal_that_names_the_schema_counts_for_all_that_follow(metric):
    refused = {"status": 400, "error": {"message": "'response_format' of this type is unavailable now"}}
    with JudgeServer(lambda prediction, n: refused if (prediction, n) == ("b", 0) else GOOD) as server:
        assert ask(metric, server, ["a", "b", "c"], concurrency=1)["num_unscored"] == 0
        assert ["response_format" in request for request in server.requests] == [True, True, False, False]


def test_an_endpoint_that_is_not_there_is_tried_repeatedly_for_the_first_description_alone(metric):
    options = {"model": MODEL, "base_url": "http://127.0.0.1:1/v1", "concurrency": 1, **FAST}
    result = metric.compute(predictions=list("abc"), references=["r"] * 3, **options)
    assert (result["num_unscored"], result["usage"]["num_requests"]) == (3, 3 + 1 + 1)


def test_an_endpoint_that_answered_once_is_tried_repeatedly_for_all(metric):
    with JudgeServer(lambda prediction, n: GOOD if prediction == "a" else {"drop": True}) as server:
        assert ask(metric, server, list("abc"), concurrency=1)["usage"]["num_requests"] == 1 + 3 + 3


def test_a_refusal_ends_the_run_although_other_requests_pause(metric):
    pausing = threading.Event()

    def script(prediction, n):
        if prediction == "a":
            pausing.set()
            return {"status": 429, "headers": {"Retry-After": "60"}}
        pausing.wait(20)
        return {"status": 401, "error": {"message": "wrong key"}}

    start = time.monotonic()
    with JudgeServer(script) as server, pytest.raises(OSError, match="refuses requests .AuthenticationError"):
        ask(metric, server, ["a", "b"], concurrency=2)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("change", ["model", "max_tokens", "reference", "prediction", "base_url", "version"])
def test_whatever_decides_a_reply_decides_the_cache(metric, tmp_path, monkeypatch, change):
    pair = {"predictions": ["a"], "references": ["r"]}
    options = {"model": MODEL, "cache_dir": tmp_path, **FAST}
    with JudgeServer(lambda prediction, n: GOOD) as server, JudgeServer(lambda prediction, n: GOOD) as other:
        metric.compute(**pair, **options, base_url=server.url)
        again = {**options, "concurrency": 2, "timeout_seconds": 4.0, "max_retries": 0, "api_key": "another"}
        metric.compute(**pair, **again, base_url=server.url)
        assert len(server.requests) == 1
        url = server.url
        if change == "model":
            options["model"] = "judge-2024-02-02"
        elif change == "max_tokens":
            options["max_tokens"] = 99
        elif change in ("reference", "prediction"):
            pair[f"{change}s"] = ["another"]
        elif change == "base_url":
            url = other.url
        else:
            monkeypatch.setattr(sibling(metric, "judge_client"), "VERSION", "2.0")
        metric.compute(**pair, **options, base_url=url)
        assert len(server.requests) + len(other.requests) == 2


def test_quotations_in_replies_of_an_endpoint_are_not_read(metric, tmp_path):
    prediction = "A dog.\n" + TEXT.replace("3", "5")
    quoting = TEXT.replace("\n", f'\nExplanation: it said "{prediction}"\n')
    with JudgeServer(lambda prediction, n: quoting) as server:
        for _ in range(2):  # from the server, then from the disk
            result = ask(metric, server, [prediction], cache_dir=tmp_path)
            assert result["per_sample"][0]["scores"] == scores(4, 3, 2, 1)
        assert len(server.requests) == 1


def test_a_damaged_cache_file_is_asked_for_again(metric, tmp_path):
    with JudgeServer(lambda prediction, n: GOOD) as server:
        ask(metric, server, ["a"], cache_dir=tmp_path)
        (path,) = tmp_path.iterdir()
        path.write_text(path.read_text()[:50])
        assert ask(metric, server, ["a"], cache_dir=tmp_path)["average"] == 3.5
        assert len(server.requests) == 2


def test_the_key_is_sent_but_never_stored(metric, tmp_path):
    with JudgeServer(lambda prediction, n: GOOD) as server:
        ask(metric, server, ["a"], cache_dir=tmp_path, api_key="sk-secret")
    assert not any("sk-secret" in path.read_text() for path in tmp_path.iterdir())


def test_answers_of_odd_servers_do_not_stop_the_run(metric):
    odd = {
        "object": {"choices": [{"message": {"content": scores(5, 4, 3, 2)}}]},
        "nothing": {"choices": [{"message": {"content": None}}], "usage": {"prompt_tokens": None}},
        "no message": {"choices": [{}]},
        "no choice": {"choices": []},
    }
    with JudgeServer(lambda prediction, n: {"body": json.dumps(odd[prediction]).encode()}) as server:
        result = ask(metric, server, list(odd))
    assert [sample["scores"] for sample in result["per_sample"]] == [scores(5, 4, 3, 2), None, None, None]
    assert [server.asked(name) for name in odd] == [1, 1, 3, 3]  # what is no completion is asked for again
    assert result["usage"]["prompt_tokens"] == 0


def test_equal_samples_are_asked_once(metric):
    with JudgeServer(lambda prediction, n: GOOD) as server:
        result = ask(metric, server, ["a", "b", "a", "a"])
    assert len(server.requests) == 2
    assert result["usage"]["num_requests"] == 2
    assert result["usage"]["prompt_tokens"] == 200
    assert result["average"] == 3.5


def test_requests_run_side_by_side(metric):
    all_there = threading.Barrier(4, timeout=20)  # nobody gets a reply before four requests are under way

    def script(prediction, n):
        all_there.wait()
        return GOOD

    with JudgeServer(script) as server:
        assert ask(metric, server, list("abcd"), concurrency=4, max_retries=0, timeout_seconds=30)["num_unscored"] == 0


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"status": 401, "error": {"message": "bad key"}}, "bad key"),
        ({"status": 404, "error": {"message": "no such model"}}, "no such model"),
        ({"status": 429, "error": {"message": "pay first", "code": "insufficient_quota"}}, "pay first"),
    ],
)
def test_an_endpoint_that_refuses_everything_ends_the_run(metric, tmp_path, outcome, reason):
    with JudgeServer(lambda prediction, n: outcome if prediction == "b" else GOOD) as server:
        with pytest.raises(OSError, match=f"refuses requests .*{reason}.*Check `model`, `base_url`, `api_key`"):
            ask(metric, server, ["a", "b", "c"], concurrency=1, cache_dir=tmp_path)
        assert server.asked("b") == 1
    assert len(list(tmp_path.glob("*.json"))) >= 1  # what was answered before stays


def test_cost_before_and_after(metric, tmp_path):
    with JudgeServer(lambda prediction, n: GOOD) as server:
        with pytest.raises(ValueError, match="The estimate of .* for 2 requests is above `max_cost`"):
            ask(metric, server, ["a", "b"], prices=(1e6, 1e6), max_cost=10.0)
        with pytest.raises(ValueError, match="`max_cost` is given without `prices`"):
            ask(metric, server, ["a", "b"], max_cost=10.0)
        with pytest.raises(ValueError, match=r"The estimate of 0\.00\d*[1-9]\d* for 1 requests"):
            ask(metric, server, ["a"], prices=(2.5, 10.0), max_cost=0.0001)
        assert server.requests == []
        usage = ask(metric, server, ["a", "b"], prices=(2.5, 10.0), max_cost=1.0, cache_dir=tmp_path)["usage"]
        assert usage["cost"] == pytest.approx((200 * 2.5 + 40 * 10.0) / 1e6)
        assert usage["estimate"]["num_requests"] == 2
        assert 0 < usage["estimate"]["cost"] < 1.0
        again = ask(metric, server, ["a", "b", "c"], prices=(2.5, 10.0), cache_dir=tmp_path)["usage"]
        assert again["estimate"]["num_requests"] == 1  # what is on the disk costs nothing


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"concurrency": 0}, ValueError, "`concurrency` is 0. It must be at least 1"),
        ({"max_retries": -1}, ValueError, "`max_retries` is -1. It must be at least 0"),
        ({"base_url": None}, ValueError, "There is no `api_key`"),
        (
            {"base_url": None, "model": "gpt-4o", "api_key": "k"},
            ValueError,
            "`model` is 'gpt-4o', which may change its weights any day. Pass a dated id",
        ),
        ({"retry_delay_seconds": -0.1}, ValueError, "`retry_delay_seconds` is -0.1. It must be at least 0"),
        ({"timeout_seconds": 0}, ValueError, "`timeout_seconds` is 0. It must be above 0"),
        *(
            ({"base_url": url}, ValueError, "`base_url` is .*, which is no address of an endpoint. Pass one such as")
            for url in ("notaurl", "localhost:8000/v1", "http://", "ftp://host/v1", "http://host:port/v1")
        ),
        (
            {"temprature": 1},
            TypeError,
            "`temprature` is no option of this metric. An endpoint takes api_key, concurrency, max_retries, "
            "retry_delay_seconds, timeout_seconds, max_tokens",
        ),
        ({"cache": None}, TypeError, "`cache` is no option of this metric"),
    ],
)
def test_settings_are_checked(metric, options, error, reason):
    options = {"model": MODEL, "base_url": "http://127.0.0.1:1/v1", **options}
    with pytest.raises(error, match=reason):
        metric.compute(predictions=["a"], references=["r"], **options)


@pytest.mark.parametrize(
    "url", ["https://me:hidden@host/v1", "http://hidden@host", "me:hidden@host/v1", "http://me:hid/den@host/v1"]
)
def test_passwords_in_an_address_are_refused_and_not_repeated(metric, monkeypatch, url):
    options = {"predictions": ["a"], "references": ["r"], "model": MODEL}
    with pytest.raises(ValueError, match="`base_url` holds a user name or password.*the key as `api_key`") as caught:
        metric.compute(**options, base_url=url)
    assert "hid" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ValueError, match="`base_url` holds a user name or password"):
        metric.compute(**options, api_key="k")


def test_a_wrong_address_in_the_environment_is_refused_too(metric, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "notaurl")
    with pytest.raises(ValueError, match="`base_url` is 'notaurl'"):
        metric.compute(predictions=["a"], references=["r"], model=MODEL, api_key="k")


def test_a_reply_that_becomes_readable_is_kept_from_then_on(metric, tmp_path):
    with JudgeServer(lambda prediction, n: "no idea" if n == 0 else GOOD) as server:
        runs = [ask(metric, server, ["a"], cache_dir=tmp_path) for _ in range(3)]
    assert [run["num_unscored"] for run in runs] == [1, 0, 0]
    assert len(server.requests) == 2


def test_a_missing_client_is_named(metric, monkeypatch):
    monkeypatch.setattr(sibling(metric, "judge_client"), "openai", None)
    with pytest.raises(ImportError, match="needs `openai`. Install it with `pip install openai`"):
        metric.compute(predictions=["a"], references=["r"], model=MODEL, base_url="http://127.0.0.1:1/v1")
