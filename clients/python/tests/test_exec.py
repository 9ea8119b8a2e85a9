from __future__ import annotations

import pytest

import nimbus
from conftest import Fake, ready

# Every kind of byte in both streams, so that frames are text here and base64 there and cuts fall inside of characters.
SCRIPT = (
    "i=0; while [ $i -lt 60 ]; do printf 'line %s ü€\\377\\n' $i; printf 'e%s' $i >&2; i=$((i+1)); done; "
    "sleep 0.05; printf end; exit 7"
)


def streams(outputs: list[nimbus.Output]) -> tuple[bytes, bytes]:
    return (
        b"".join(one.data for one in outputs if one.stream == "stdout"),
        b"".join(one.data for one in outputs if one.stream == "stderr"),
    )


def test_exec_collects(client: nimbus.Nimbus) -> None:
    sandbox = ready(client)
    result = sandbox.exec(["sh", "-c", "echo out; echo err >&2; printf $WORD; cat; exit 4"], env={"WORD": "word"}, stdin="typed")
    assert (result.exit_code, result.stdout, result.stderr, result.truncated) == (4, "out\nwordtyped", "err\n", False)
    cut = sandbox.exec(["sh", "-c", "yes | head -c 100000; exit 1"], max_output_bytes=10)
    assert (cut.exit_code, cut.stdout, cut.truncated) == (1, "y\n" * 5, True)
    late = sandbox.exec(["sleep", "30"], timeout=0.05)
    assert (late.exit_code, late.signal, late.timed_out) == (None, "KILL", True)


def test_spawn_talks(client: nimbus.Nimbus) -> None:
    sandbox = ready(client)
    seen = []
    with sandbox.spawn(["sh", "-c", "echo ready; read line; echo got $line; exit 2"]) as command:
        for output in command:
            seen.append(output.text.strip())
            if seen == ["ready"]:
                command.end("line\n")
    assert seen == ["ready", "got line"]
    assert command.exit == nimbus.Exit(2)


def test_a_block_kills_what_is_left(client: nimbus.Nimbus) -> None:
    sandbox = ready(client)
    with sandbox.spawn(["sleep", "30"]) as command:
        pass
    assert sandbox.attach(command.command_id).wait().signal == "KILL"
    assert command.command_id in [one.command_id for one in sandbox.commands()]


def test_a_refusal_is_raised(client: nimbus.Nimbus) -> None:
    sandbox = ready(client)
    sandbox.stop()
    with pytest.raises(nimbus.NimbusConflictError):
        sandbox.exec(["true"])
    with pytest.raises(nimbus.NimbusConflictError):
        sandbox.spawn(["true"])


def test_a_broken_connection_loses_and_doubles_nothing(client: nimbus.Nimbus, fake: Fake) -> None:
    sandbox = ready(client)
    whole = list(sandbox.spawn(["sh", "-c", SCRIPT]))
    fake.cut_after(1, 2, 3, 5, 40, 100, 111)
    command = sandbox.spawn(["sh", "-c", SCRIPT])
    pieces = list(command)
    assert streams(pieces) == streams(whole)
    assert command.exit == nimbus.Exit(7)
    offset = 0
    for piece in pieces:
        assert piece.offset == offset
        offset += len(piece.data)
    requests = [one for one in fake.requests() if command.command_id in one["path"] + one["body"]]
    assert [one["method"] for one in requests] == ["POST"] + ["GET"] * 7
    assert [one["path"].split("from=")[1] for one in requests[1:]] == ["1", "3", "6", "11", "51", "151", "262"]


def test_text_keeps_characters_whole(client: nimbus.Nimbus, fake: Fake) -> None:
    sandbox = ready(client)
    fake.cut_after(1, 1, 2)
    assert "".join(one.text for one in sandbox.spawn(["printf", "ü€x"])) == "ü€x"


def test_a_lost_start_runs_once(client: nimbus.Nimbus, fake: Fake) -> None:
    sandbox = ready(client)
    fake.break_next("^POST .*exec$", after=True)
    assert sandbox.exec(["sh", "-c", "echo run >>count; sleep 0.05; cat count"]).stdout == "run\n"


def test_lost_input_is_not_doubled(client: nimbus.Nimbus, fake: Fake) -> None:
    command = ready(client).spawn(["cat"])
    fake.break_next("^POST .*input$", after=True)
    command.write("one ")
    command.end(b"two")
    assert command.wait().stdout == "one two"


def test_a_server_that_is_away_is_waited_for(client: nimbus.Nimbus, fake: Fake) -> None:
    sandbox = ready(client)
    fake.cut_after(3)
    fake.break_next("^GET .*commands", times=2)
    fake.break_next("^GET .*commands", status=503, times=2)
    assert sandbox.exec(["echo", "through"]).stdout == "through\n"


def test_a_stream_that_the_server_ends_is_come_back_to(client: nimbus.Nimbus, fake: Fake) -> None:
    sandbox = ready(client)
    closed = '{"kind":"opened"}\n{"kind":"closed","reason":"dropped","offset":0}\n'
    fake.break_next("^POST .*exec$", status=200, text=closed, after=True)
    busy = '{"kind":"opened"}\n{"kind":"error","error":{"code":"service.unavailable","message":"away","retryable":true}}\n'
    fake.break_next("^GET .*commands", status=200, text=busy)
    assert sandbox.exec(["echo", "through"]).stdout == "through\n"
    gone = '{"kind":"opened"}\n{"kind":"error","error":{"code":"op.out_of_retention","message":"slow","retryable":true}}\n'
    fake.break_next("^POST .*exec$", status=200, text=gone)
    with pytest.raises(nimbus.NimbusOutOfRetentionError):
        sandbox.exec(["echo", "through"])


def test_output_that_is_gone_is_an_error(client: nimbus.Nimbus, fake: Fake) -> None:
    sandbox = ready(client)
    fake.cut_after(3)
    fake.break_next("^GET .*commands", status=409, code="op.out_of_retention", retryable=True)
    with pytest.raises(nimbus.NimbusOutOfRetentionError):
        sandbox.exec(["echo", "through"])


def test_somebody_else_can_come_back(client: nimbus.Nimbus) -> None:
    sandbox = ready(client)
    command = sandbox.spawn(["sh", "-c", "echo begin; read x; echo $x"], command_id="mine")
    command.write("later\n")
    command.detach()
    assert sandbox.attach("mine", since=6).wait().stdout == "later\n"
