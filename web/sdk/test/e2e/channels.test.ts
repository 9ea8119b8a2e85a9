import { createHash } from "node:crypto";
import { expect, it } from "vitest";
import { NimbusApiError, type NimbusExecEvent } from "../../src/index.js";
import { all, failureOf, socketClass, textOf } from "../world.js";
import { breaking, client, onServer, place, running } from "./place.js";

const digest = (events: readonly NimbusExecEvent[], kind: "stdout" | "stderr"): string => {
  const hash = createHash("sha256");
  for (const event of events) if ("data" in event && event.kind === kind) hash.update(event.data);
  return hash.digest("hex");
};

onServer("commands", (tenant, nimbus) => {
  it("are collected", async () => {
    await using sandbox = await running(nimbus);
    const result = await sandbox.exec({ argv: ["sh", "-c", "echo out; echo err >&2; printf $WORD; cat; pwd; exit 4"], env: { WORD: "word" }, stdin: "typed\n", cwd: "/tmp" });
    expect(result).toMatchObject({ exitCode: 4, stdout: "out\nwordtyped\n/tmp\n", stderr: "err\n", truncated: false });
    expect((await sandbox.exec({ argv: ["cat"] })).stdout).toBe("");
    expect(await sandbox.exec({ argv: ["sleep", "60"], timeoutMs: 300 })).toMatchObject({ exitCode: null, signal: "KILL", timedOut: true });
    expect(await failureOf(sandbox.exec({ argv: ["no-such-program"] }))).toBeInstanceOf(NimbusApiError);
  });

  it("are talked to, signalled, left and come back to", async () => {
    await using sandbox = await running(nimbus);
    const command = sandbox.exec({ argv: ["sh", "-c", 'echo ready; read word; echo "got $word"; sleep 60'], stdin: { open: true } });
    for await (const event of command) {
      if (event.kind === "stdout" && event.text === "ready\n") await command.write("it\n");
      if (event.kind === "stdout" && event.text === "got it\n") break;
    }
    expect((await sandbox.commands()).find((one) => one.commandId === command.commandId)).toMatchObject({ state: "running" });
    const again = sandbox.attach({ commandId: command.commandId, from: 6 });
    await again.signal("TERM");
    expect(await again).toMatchObject({ stdout: "got it\n", exitCode: null, signal: "TERM" });
    const twice = sandbox.exec({ argv: ["sh", "-c", "echo run >>/tmp/count; cat /tmp/count"], commandId: "twice" });
    expect((await twice).stdout).toBe("run\n");
    expect((await sandbox.exec({ argv: ["sh", "-c", "echo run >>/tmp/count; cat /tmp/count"], commandId: "twice" })).stdout).toBe("run\n");
  });

  it("have a terminal where one is asked for", async () => {
    await using sandbox = await running(nimbus);
    expect((await sandbox.exec({ argv: ["sh", "-c", "test -t 0 && stty size"], terminal: { cols: 100, rows: 30 } })).stdout.trim()).toBe("30 100");
  });

  it("lose and double nothing over a connection that breaks", async () => {
    await using sandbox = await running(nimbus);
    // 4 MiB, some of it no text, in both streams.
    const argv = ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do printf 'line %06d %0990d ü\\377\\n' $i 0; printf 'e%01023d' $i >&2; i=$((i+1)); done; exit 7"];
    const whole = await all(sandbox.exec({ argv }));
    await using way = await breaking(700, 1500, 20_000, 300_000, 1_000_000, 1_500_000);
    const far = client(tenant, { endpoint: way.url });
    const events = await all(far.sandboxes.exec({ id: sandbox.id, argv }));
    expect(digest(events, "stdout")).toBe(digest(whole, "stdout"));
    expect(digest(events, "stderr")).toBe(digest(whole, "stderr"));
    expect(events.at(-1)).toEqual({ kind: "exit", exitCode: 7 });
    expect(way.broken).toBe(6);
    expect((await sandbox.commands()).length).toBe(3);
  });
});

onServer("files", (_, nimbus) => {
  it("are written, read, listed, moved and packed", async () => {
    await using sandbox = await running(nimbus);
    const { files } = sandbox;
    expect(await files.write("/tmp/w/a.txt", "grüße", { createParents: true, mode: 0o600 })).toMatchObject({ name: "a.txt", path: "/tmp/w/a.txt", type: "file", size: 7, mode: "0600" });
    expect(await files.readText("/tmp/w/a.txt")).toBe("grüße");
    const big = new Uint8Array(5 * 1024 * 1024).map((_, index) => (index * 7) % 251);
    await files.write("/tmp/w/big", big);
    expect(Buffer.compare(await files.read("/tmp/w/big"), big)).toBe(0);
    expect(await files.read("/tmp/w/big", { offset: 1_000_000, length: 5 })).toEqual(big.slice(1_000_000, 1_000_005));
    await files.write("/tmp/w/streamed", new Blob(["streamed"]).stream());
    const { etag } = await files.stat("/tmp/w/streamed");
    expect(await failureOf(files.write("/tmp/w/streamed", "x", { ifNoneMatch: "*" }))).toMatchObject({ status: 412 });
    await files.write("/tmp/w/streamed", "changed", { ifMatch: etag });
    expect(await failureOf(files.write("/tmp/w/streamed", "again", { ifMatch: etag }))).toMatchObject({ status: 412 });
    await files.mkdir("/tmp/w/sub");
    await files.move("/tmp/w/streamed", "/tmp/w/sub/moved");
    expect((await all(files.list("/tmp/w", { limit: 1 }))).map((entry) => `${entry.name} ${entry.type}`)).toEqual(["a.txt file", "big file", "sub dir"]);
    const tar = await new Response(await files.archive("/tmp/w/sub")).arrayBuffer();
    await files.extract("/tmp/copy", new Uint8Array(tar));
    expect((await sandbox.exec({ argv: ["find", "/tmp/copy", "-name", "moved", "-exec", "cat", "{}", ";"] })).stdout).toBe("changed");
    await files.remove("/tmp/w", { recursive: true });
    expect(await failureOf(files.stat("/tmp/w"))).toMatchObject({ code: "op.not_found" });
    expect(await failureOf(files.read("relative"))).toMatchObject({ code: "op.invalid_input" });
  });
});

onServer("sessions", (tenant, nimbus) => {
  it("are leases with a snapshot, an end and a reason", async () => {
    await using sandbox = await running(nimbus);
    const target = { sandbox: { id: sandbox.id } };
    const session = await nimbus.sessions.open({ target, channels: ["stdio", "files"], requestedTtlMs: 300_000 });
    expect(session.id).toMatch(/^ses_[0-9a-hjkmnp-tv-z]{26}$/);
    expect(session.spec).toMatchObject({ target, channels: ["stdio", "files"], targetSnapshot: { sandbox: { id: sandbox.id, generation: 1, profile: "worker", backend: "container" } } });
    expect(Math.abs(Date.parse(session.spec.expiresAt) - Date.now() - 300_000)).toBeLessThan(10_000);
    expect((await all(nimbus.sessions.list({ state: "open" }))).map((one) => one.id)).toContain(session.id);
    const clamped = await nimbus.sessions.open({ target, channels: ["files"], requestedTtlMs: 24 * 3_600_000 });
    expect(Date.parse(clamped.spec.expiresAt) - Date.now()).toBeLessThan(3_610_000);
    const closed = await session.close({ reason: "done" });
    expect(closed).toMatchObject({ metadata: { generation: 2 }, status: { lifecycleState: "closed", closeReason: "done" } });
    expect((await session.close({ reason: "again" })).status.closeReason).toBe("done");
    expect((await all(nimbus.sessions.list({ state: "closed" }))).map((one) => one.id)).toEqual([session.id]);
    await sandbox.stop();
    await sandbox.wait("stopped");
    expect((await clamped.refresh()).status).toMatchObject({ lifecycleState: "closed", closeReason: "target_stopped" });
    expect(await failureOf(nimbus.sessions.open({ target, channels: ["stdio"] }))).toMatchObject({ code: "op.conflict", detail: { lifecycleState: "stopped" } });
  });

  it("offer what the target has", async () => {
    await using sandbox = await running(nimbus);
    expect(await failureOf(nimbus.sessions.open({ target: { sandbox: { id: sandbox.id } }, channels: ["cdp"] }))).toMatchObject({ code: "op.invalid_input", detail: { offered: ["stdio", "files"] } });
    const { files } = await nimbus.sessions.open({ target: { sandbox: { id: sandbox.id } }, channels: ["files"] });
    await files.write("/tmp/note", "by session");
    expect(await sandbox.files.readText("/tmp/note")).toBe("by session");
  });

  for (const [name, webSocket] of [["a WebSocket", socketClass], ["plain HTTP", null]] as const) {
    it(`carry stdio over ${name}`, async () => {
      const own = client(tenant, { webSocket });
      await using sandbox = await running(own, ["sh", "-c", "echo hello; while read line; do echo main $line; done"]);
      await using session = await own.sessions.open({ target: { sandbox: { id: sandbox.id } }, channels: ["stdio"] });

      await using main = await session.stdio();
      const reader = main.stdout.getReader();
      const decoder = new TextDecoder();
      let seen = "";
      const until = async (text: string): Promise<void> => {
        while (!seen.includes(text)) {
          const { value, done } = await reader.read();
          if (done) throw new Error(`the channel ended after ${JSON.stringify(seen)}`);
          seen += decoder.decode(value, { stream: true });
        }
      };
      await until("hello\n");
      const writer = main.stdin.getWriter();
      await writer.write("typed\n");
      await until("main typed\n");

      const extra = await session.stdio({ argv: ["sh", "-c", "cat; echo err >&2; exit 5"] });
      const out = textOf(extra.stdout);
      const err = textOf(extra.stderr);
      const input = extra.stdin.getWriter();
      const sent = "0123456789".repeat(30_000);
      await input.write(sent);
      await input.close();
      expect(await out).toBe(sent);
      expect(await err).toBe("err\n");
      expect(await extra.ended).toEqual({ exitCode: 5, reason: null });

      const shell = await session.stdio({ argv: ["sh", "-c", "stty size; sleep 60"], terminal: { cols: 90, rows: 20 } });
      const first = await shell.stdout.getReader().read();
      expect(new TextDecoder().decode(first.value).trim()).toBe("20 90");
      await shell.signal("KILL");
      expect((await shell.ended).reason).toBe(null);

      await session.close({ reason: "enough" });
      expect((await main.ended).reason).toBe("enough");
    });
  }

  it("let in a browser with a ticket, once", async () => {
    const own = client(tenant, { webSocket: socketClass });
    await using sandbox = await running(own);
    await using session = await own.sessions.open({ target: { sandbox: { id: sandbox.id } }, channels: ["stdio"] });
    const { ticket } = await session.ticket();
    const url = `${place.url.replace(/^http/, "ws")}/api/sessions/${session.id}/channels/stdio?ticket=${ticket}`;
    const closings: number[] = [];
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const socket = new socketClass(url, "nimbus.session.v1");
      closings.push(
        await new Promise<number>((resolve) => {
          socket.addEventListener("message", () => { resolve(0); });
          socket.addEventListener("error", () => { resolve(-1); });
          socket.addEventListener("close", (event) => { resolve(event.code); });
        }),
      );
      socket.close();
    }
    expect(closings[0]).toBe(0);
    expect(closings[1]).not.toBe(0);
  });
});
