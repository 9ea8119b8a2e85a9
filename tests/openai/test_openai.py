"""The official OpenAI client against Nimbus, with a real inference server behind it."""

from __future__ import annotations

import asyncio
import re

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from conftest import MODEL, Nimbus, Upstream, eventually

HELLO = [{"role": "user", "content": "hello"}]
#: What the server makes up anew for each answer.
FRESH = re.compile(rb'"(id|system_fingerprint)":"[^"]*"|"created":\d+|"timings":\{[^}]*\}|"cached_tokens":\d+')


@pytest.fixture(scope="session")
def ada(nimbus: Nimbus) -> str:
    """The first person of the installation."""
    return nimbus.person("ada", ["gpu", "admin"])


def test_models_are_listed(nimbus: Nimbus, ada: str) -> None:
    assert [model.id for model in nimbus.client(ada).models.list()] == [MODEL]
    inference = eventually(lambda: (seen := nimbus.call("GET", "gpu/inference", ada))["status"] == "up" and seen)
    assert inference["models"] == [MODEL] and inference["base_url"] == f"{nimbus.url}/api/gpu/v1"


def test_answers_are_those_of_the_server_and_are_counted(nimbus: Nimbus, ada: str, upstream: Upstream) -> None:
    bob = nimbus.person("bob", ["gpu"])
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 12, "temperature": 0.0, "seed": 1}
    direct = openai.OpenAI(base_url=f"{upstream.url}/v1", api_key=upstream.key).chat.completions.create(**options)
    through = nimbus.client(bob).chat.completions.create(**options)
    assert through.choices[0].message.content == direct.choices[0].message.content
    assert through.usage is not None and through.usage.completion_tokens == 12
    text = nimbus.client(bob).completions.create(model=MODEL, prompt="once", max_tokens=3)
    assert text.usage is not None
    sent = through.usage.prompt_tokens + text.usage.prompt_tokens
    expected = {"requests": 2, "sent": sent, "got": 15, "models": {MODEL}, "estimated": False}
    eventually(lambda: nimbus.used(bob) == expected)
    # Nobody pays for others.
    assert nimbus.used(ada)["got"] != 15


def test_a_stream_is_the_servers_own_byte_for_byte(nimbus: Nimbus, upstream: Upstream, ada: str) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 40, "temperature": 0.0, "seed": 1, "stream": True}
    body["stream_options"] = {"include_usage": True}

    def stream(url: str, key: str) -> tuple[bytes, int]:
        pieces = []
        with httpx.stream("POST", f"{url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            pieces = list(answer.iter_raw())
        return b"".join(pieces), len(pieces)

    direct, _ = stream(f"{upstream.url}/v1", upstream.key)
    through, pieces = stream(f"{nimbus.url}/api/gpu/v1", ada)
    assert FRESH.sub(b"", through) == FRESH.sub(b"", direct)
    assert through.endswith(b"data: [DONE]\n\n") and pieces > 3, "it came in pieces"


def test_streams_are_counted_with_and_without_a_word_about_it(nimbus: Nimbus) -> None:
    carol = nimbus.person("carol", ["gpu"])
    client = nimbus.client(carol)
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 10, "temperature": 0.0, "seed": 3, "stream": True}
    last = None
    for chunk in client.chat.completions.create(**options, stream_options={"include_usage": True}):
        last = chunk
    assert last is not None and last.usage is not None and last.usage.completion_tokens == 10
    expected = {"requests": 1, "sent": last.usage.prompt_tokens, "got": 10, "models": {MODEL}, "estimated": False}
    eventually(lambda: nimbus.used(carol) == expected)
    pieces = sum(1 for chunk in client.chat.completions.create(**options) if chunk.choices)
    used = eventually(lambda: (used := nimbus.used(carol))["requests"] == 2 and used)
    assert used["estimated"] and used["got"] == 10 + pieces


def test_many_streams_at_once_stay_apart(nimbus: Nimbus, ada: str) -> None:
    async def one(client: AsyncOpenAI, number: int) -> str:
        text = ""
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": f"{number % 2}"}], max_tokens=30, temperature=0.0, seed=1, stream=True
        )
        async for chunk in stream:
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
        return text

    async def everybody() -> list[str]:
        async with AsyncOpenAI(base_url=f"{nimbus.url}/api/gpu/v1", api_key=ada) as client:
            return await asyncio.gather(*(one(client, number) for number in range(8)))

    texts = asyncio.run(everybody())
    assert all(texts) and len(texts) == 8


def test_who_leaves_ends_the_work_and_pays_for_what_was_made(nimbus: Nimbus, upstream: Upstream) -> None:
    dan = nimbus.person("dan", ["gpu"])
    stream = nimbus.client(dan).chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=7000, temperature=0.0, stream=True
    )
    next(iter(stream))
    assert upstream.busy() == 1
    stream.close()
    eventually(lambda: upstream.busy() == 0)
    used = eventually(lambda: (used := nimbus.used(dan))["requests"] and used)
    assert 0 < used["got"] < 6500, "it was ended before its end"


def test_failures_are_those_the_client_knows(nimbus: Nimbus, upstream: Upstream, ada: str) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong:
        nimbus.client("nbp_wrong").models.list()
    assert wrong.value.code == "auth.unauthorized" and wrong.value.type == "authentication_error"
    # The key of the box opens the box, and nothing here.
    with pytest.raises(openai.AuthenticationError):
        nimbus.client(upstream.key).models.list()
    reader = nimbus.person("eve", ["machines:read"])
    with pytest.raises(openai.PermissionDeniedError):
        nimbus.client(reader).models.list()
    with pytest.raises(openai.NotFoundError) as nowhere:
        nimbus.client(ada).audio.speech.create(model=MODEL, voice="alloy", input="x")
    assert nowhere.value.code == "op.not_found"
    with pytest.raises(openai.APIStatusError) as refused:
        nimbus.client(ada).chat.completions.create(model=MODEL, messages=[], max_tokens=-5, extra_body={"grammar": 7})
    assert refused.value.status_code in (400, 500), "the server's own answer"


def test_a_server_that_is_away_is_told_and_found_again(nimbus: Nimbus, upstream: Upstream, ada: str) -> None:
    upstream.stop()
    try:
        with pytest.raises(openai.InternalServerError) as down:
            nimbus.client(ada).chat.completions.create(model=MODEL, messages=HELLO)
        assert (down.value.status_code, down.value.code) == (502, "gpu.inference_down")
        eventually(lambda: nimbus.call("GET", "gpu/inference", ada)["status"] == "down")
    finally:
        upstream.start()
    assert nimbus.client(ada).chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1).choices
    eventually(lambda: nimbus.call("GET", "gpu/inference", ada)["status"] == "up")
    off = {"enabled": False, "base_url": upstream.url, "inference_model": MODEL}
    nimbus.call("PUT", "settings/gpu", nimbus.admin, off)
    try:
        with pytest.raises(openai.InternalServerError) as unset:
            nimbus.client(ada).models.list()
        assert (unset.value.status_code, unset.value.code) == (503, "gpu.not_configured")
    finally:
        nimbus.call("PUT", "settings/gpu", nimbus.admin, off | {"enabled": True})
