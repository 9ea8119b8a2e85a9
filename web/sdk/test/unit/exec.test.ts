import { describe, expect, it } from "vitest";
import { NimbusError, NimbusOutOfRetentionError, type NimbusExecEvent, type NimbusSandbox } from "../../src/index.js";
import { all, failureOf, spec, world, type World } from "../world.js";

async function ready(here: World): Promise<NimbusSandbox> {
  const sandbox = await here.nimbus.sandboxes.create({ profile: "worker", spec: spec() });
  const found = await sandbox.wait("ready", { intervalMs: 10 });
  here.fake.requests.length = 0;
  return found;
}

const output = (events: readonly NimbusExecEvent[], kind: "stdout" | "stderr"): Buffer =>
  Buffer.concat(events.flatMap((event) => ("data" in event && event.kind === kind ? [event.data] : [])));

describe("exec", () => {
  it("collects output and exit code", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const result = await sandbox.exec({ argv: ["sh", "-c", "echo out; echo err >&2; printf $WORD; cat; exit 4"], env: { WORD: "word" }, stdin: "typed" });
    expect(result).toMatchObject({ exitCode: 4, stdout: "out\nwordtyped", stderr: "err\n", truncated: false });
    expect(await sandbox.exec({ argv: ["cat"] }).then((empty) => empty.stdout)).toBe("");
    expect(await sandbox.exec({ argv: ["true"] }).catch(() => "failed")).toMatchObject({ exitCode: 0 });
  });

  it("keeps as much as asked for and lets the command finish", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const result = await sandbox.exec({ argv: ["sh", "-c", "yes | head -c 100000; exit 1"], maxOutputBytes: 10 });
    expect(result).toMatchObject({ exitCode: 1, stdout: "y\ny\ny\ny\ny\n", truncated: true });
  });

  it("tells of a time limit", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    expect(await sandbox.exec({ argv: ["sleep", "30"], timeoutMs: 50 })).toMatchObject({ exitCode: null, signal: "KILL", timedOut: true });
  });

  it("yields events as they happen", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const command = sandbox.exec({ argv: ["sh", "-c", "echo ready; read line; echo got $line; exit 2"], stdin: { open: true } });
    const kinds: string[] = [];
    for await (const event of command) {
      kinds.push(event.kind === "stdout" ? event.text.trim() : event.kind);
      if (event.kind === "stdout" && event.text.startsWith("ready")) await command.end("line\n");
      if (event.kind === "exit") expect(event.exitCode).toBe(2);
    }
    expect(kinds).toEqual(["opened", "ready", "got line", "exit"]);
  });

  it("sends signals, and kills what is left of a block", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const slow = sandbox.exec({ argv: ["sleep", "30"] });
    await slow.signal("TERM");
    expect(await slow).toMatchObject({ exitCode: null, signal: "TERM" });
    let id: string;
    {
      await using left = sandbox.exec({ argv: ["sleep", "30"] });
      await left.opened();
      id = left.commandId;
    }
    const again = sandbox.attach({ commandId: id });
    expect(await again).toMatchObject({ signal: "KILL" });
    expect((await sandbox.commands()).map((one) => one.commandId)).toContain(id);
  });

  it("reports a refusal to whoever reads, and only to them", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    await sandbox.stop();
    sandbox.exec({ argv: ["true"] });
    expect(await failureOf(sandbox.exec({ argv: ["true"] }))).toMatchObject({ code: "op.conflict", detail: { lifecycleState: "stopped" } });
    expect(await failureOf(all(sandbox.exec({ argv: ["true"] })))).toMatchObject({ code: "op.conflict" });
  });

  it("is read once", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const command = sandbox.exec({ argv: ["true"] });
    await command;
    await command;
    expect(await failureOf(all(command))).toBeInstanceOf(NimbusError);
  });
});

describe("a broken connection", () => {
  // Every byte value, in both streams, so that frames are text here and base64 there and cuts fall inside of characters.
  const script = `i=0; while [ $i -lt 60 ]; do printf 'line %s ü€\\377\\n' $i; printf 'e%s' $i >&2; i=$((i+1)); done; sleep 0.05; printf end; exit 7`;

  it("loses no byte and doubles none", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const whole = await all(sandbox.exec({ argv: ["sh", "-c", script] }));
    here.fake.cutAfter(1, 2, 3, 5, 40, 100, 111);
    const command = sandbox.exec({ argv: ["sh", "-c", script] });
    const events = await all(command);
    expect(output(events, "stdout").equals(output(whole, "stdout"))).toBe(true);
    expect(output(events, "stderr").equals(output(whole, "stderr"))).toBe(true);
    expect(events.filter((event) => event.kind === "opened")).toHaveLength(1);
    expect(events.at(-1)).toEqual({ kind: "exit", exitCode: 7 });
    let next = 0;
    for (const event of events) {
      if (event.kind !== "stdout" && event.kind !== "stderr") continue;
      expect(event.offset).toBe(next);
      next += event.data.length;
    }
    const asked = here.fake.requests.filter((request) => request.path.includes(`/commands/${command.commandId}?from=`)).map((request) => Number(new URL(request.path, "http://x").searchParams.get("from")));
    expect(asked).toEqual([1, 3, 6, 11, 51, 151, 262]);
    // One POST only: it ran once.
    expect(here.fake.requests.filter((request) => request.path.endsWith("/exec") && request.body.includes(command.commandId))).toHaveLength(1);
  });

  it("keeps characters whole in the text of events", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    here.fake.cutAfter(1, 1, 2);
    const events = await all(sandbox.exec({ argv: ["printf", "ü€x"] }));
    expect(events.map((event) => (event.kind === "stdout" ? event.text : "")).join("")).toBe("ü€x");
  });

  it("repeats a start whose answer was lost under the same id", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    here.fake.breakNext(/^POST .*exec$/, { after: true });
    const result = await sandbox.exec({ argv: ["sh", "-c", "echo run >>count; sleep 0.05; cat count"] });
    expect(result.stdout).toBe("run\n");
    expect(here.fake.requests.filter((request) => request.path.endsWith("/exec"))).toHaveLength(2);
  });

  it("does not double input whose answer was lost", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const command = sandbox.exec({ argv: ["cat"], stdin: { open: true } });
    here.fake.breakNext(/^POST .*input$/, { after: true });
    await command.write("one ");
    await command.end("two");
    expect((await command).stdout).toBe("one two");
  });

  it("is survived while the server is away", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    here.fake.cutAfter(3);
    here.fake.breakNext(/^GET .*commands/, { times: 2 });
    here.fake.breakNext(/^GET .*commands/, { status: 503, times: 2 });
    expect((await sandbox.exec({ argv: ["echo", "through"] })).stdout).toBe("through\n");
  });

  it("is no reason to give up when the server ends the stream only", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const closed = `{"kind":"opened","commandId":"c","offset":0}\n{"kind":"closed","reason":"dropped","offset":0}\n`;
    here.fake.breakNext(/^POST .*exec$/, { status: 200, text: closed, after: true });
    const busy = `{"kind":"opened"}\n{"kind":"error","error":{"code":"service.unavailable","message":"away","retryable":true}}\n`;
    here.fake.breakNext(/^GET .*commands/, { status: 200, text: busy });
    expect((await sandbox.exec({ argv: ["echo", "through"] })).stdout).toBe("through\n");
    const gone = `{"kind":"opened"}\n{"kind":"error","error":{"code":"op.out_of_retention","message":"too slow","retryable":true}}\n`;
    here.fake.breakNext(/^POST .*exec$/, { status: 200, text: gone });
    expect(await failureOf(sandbox.exec({ argv: ["echo", "through"] }))).toBeInstanceOf(NimbusOutOfRetentionError);
  });

  it("ends with an error where output is gone", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    here.fake.cutAfter(3);
    here.fake.breakNext(/^GET .*commands/, { status: 409, code: "op.out_of_retention", retryable: true });
    expect(await failureOf(sandbox.exec({ argv: ["echo", "through"] }))).toBeInstanceOf(NimbusOutOfRetentionError);
  });

  it("can be come back to by somebody else", async () => {
    await using here = await world();
    const sandbox = await ready(here);
    const command = sandbox.exec({ argv: ["sh", "-c", "echo begin; read x; echo $x"], stdin: { open: true }, commandId: "mine" });
    await command.write("later\n");
    command.detach();
    const other = await here.client().sandboxes.attach({ id: sandbox.id, commandId: "mine", from: 6 });
    expect(other).toMatchObject({ commandId: "mine", stdout: "later\n", exitCode: 0 });
  });
});
