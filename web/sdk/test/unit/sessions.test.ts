import { describe, expect, it } from "vitest";
import { NimbusInputError, NimbusTransportError, type NimbusClientOptions, type NimbusSession } from "../../src/index.js";
import { failureOf, socketClass, spec, textOf, world, type World } from "../world.js";

const WIRES: [string, NimbusClientOptions][] = [
  ["a WebSocket", { webSocket: socketClass }],
  ["plain HTTP", { webSocket: null }],
];

async function opened(here: World, options: NimbusClientOptions, argv = ["sh", "-c", "echo hello; cat; echo bye >&2; exit 5"]): Promise<NimbusSession> {
  const nimbus = here.client(options);
  const sandbox = await nimbus.sandboxes.create({ profile: "worker", spec: spec(argv) });
  await sandbox.wait("ready", { intervalMs: 10 });
  return nimbus.sessions.open({ target: { sandbox: { id: sandbox.id } }, channels: ["stdio", "files"], requestedTtlMs: 300_000 });
}

describe("sessions", () => {
  it("are opened, found and closed with a reason", async () => {
    await using here = await world();
    const session = await opened(here, {});
    expect(session.spec.targetSnapshot).toMatchObject({ sandbox: { profile: "worker", backend: "container" } });
    expect(Date.parse(session.spec.expiresAt)).toBeGreaterThan(Date.now() + 290_000);
    expect((await here.nimbus.sessions.list({ state: "open" })).items.map((one) => one.id)).toEqual([session.id]);
    const closed = await session.close({ reason: "done" });
    expect(closed.status).toMatchObject({ lifecycleState: "closed", closeReason: "done" });
    expect((await session.refresh()).metadata.generation).toBe(2);
    expect((await here.nimbus.sessions.list({ state: "open" })).items).toEqual([]);
  });

  it("close at the end of a block", async () => {
    await using here = await world();
    let id: string;
    {
      await using session = await opened(here, {});
      id = session.id;
    }
    expect((await here.nimbus.sessions.get({ id })).status.closeReason).toBe("client_close");
  });

  it("reach files", async () => {
    await using here = await world();
    const { files } = await opened(here, {});
    await files.write("/note", "by session");
    expect(await files.readText("/note")).toBe("by session");
  });
});

describe.each(WIRES)("stdio over %s", (_, options) => {
  it("carries both ways and ends with the process", async () => {
    await using here = await world();
    const session = await opened(here, options);
    await using stdio = await session.stdio();
    const writer = stdio.stdin.getWriter();
    await writer.write("typed ");
    await writer.write(Uint8Array.of(0xff, 0x00, 0x0a));
    await writer.close();
    const out = Buffer.from(await new Response(stdio.stdout).arrayBuffer());
    expect(out.toString("latin1")).toBe("hello\ntyped \xff\0\n");
    expect(await textOf(stdio.stderr)).toBe("bye\n");
    expect(await stdio.ended).toEqual({ exitCode: 5, reason: null });
    expect(await failureOf(stdio.signal("TERM"))).toBeInstanceOf(Error);
  });

  it("lets the input of a process end that has ended itself", async () => {
    await using here = await world();
    const session = await opened(here, options);
    const stdio = await session.stdio({ argv: ["true"] });
    await stdio.ended;
    await stdio.stdin.close();
  });

  it("carries more than fits into one frame", async () => {
    await using here = await world();
    const session = await opened(here, options);
    const stdio = await session.stdio({ argv: ["cat"] });
    const sent = "0123456789".repeat(20_000);
    const read = textOf(stdio.stdout);
    const writer = stdio.stdin.getWriter();
    await writer.write(sent);
    await writer.close();
    expect(await read).toBe(sent);
    expect((await stdio.ended).exitCode).toBe(0);
  });

  it("sends signals", async () => {
    await using here = await world();
    const session = await opened(here, options);
    const stdio = await session.stdio({ argv: ["sleep", "30"] });
    await stdio.signal("KILL");
    expect(await stdio.ended).toEqual({ exitCode: null, reason: null });
  });

  it("says why it closed", async () => {
    await using here = await world();
    const session = await opened(here, options);
    const stdio = await session.stdio();
    await session.close({ reason: "enough" });
    expect((await stdio.ended).reason).toBe("enough");
    expect(await failureOf(session.stdio())).toMatchObject({ code: "op.conflict" });
  });
});

describe("plain HTTP", () => {
  it("does not double input whose answer was lost", async () => {
    await using here = await world();
    const session = await opened(here, { webSocket: null });
    const stdio = await session.stdio({ argv: ["cat"] });
    const writer = stdio.stdin.getWriter();
    here.fake.breakNext(/^POST .*input$/, { after: true });
    await writer.write("one ");
    await writer.write("two");
    await writer.close();
    expect(await textOf(stdio.stdout)).toBe("one two");
  });
});

describe("a WebSocket", () => {
  it("is opened with a ticket and without the credential", async () => {
    await using here = await world();
    const session = await opened(here, { webSocket: socketClass });
    const stdio = await session.stdio({ argv: ["true"], terminal: { cols: 100, rows: 30 } });
    await stdio.resize(120, 40).catch(() => undefined);
    await stdio.ended;
    const upgrade = here.fake.requests.find((request) => request.path.includes("/channels/stdio?"));
    expect(upgrade?.path).toMatch(/ticket=[0-9a-f]+/);
    expect(upgrade?.path).toContain("tty=1&cols=100&rows=30");
    expect(upgrade?.headers["authorization"]).toBeUndefined();
    expect(await session.cdpUrl()).toMatch(/^ws:\/\/127\.0\.0\.1:\d+\/api\/sessions\/ses_\w+\/channels\/cdp\?ticket=/);
  });

  it("that is refused is an error", async () => {
    await using here = await world();
    const session = await opened(here, { webSocket: socketClass });
    here.fake.refuseUpgrades = true;
    expect(await failureOf(session.stdio())).toBeInstanceOf(NimbusTransportError);
    expect(await failureOf(session.page())).toBeInstanceOf(NimbusTransportError);
  });

  it("drives a page", async () => {
    await using here = await world();
    const session = await opened(here, { webSocket: socketClass });
    await using page = await session.page();
    const seen: unknown[] = [];
    page.on((event) => seen.push(event));
    expect(await page.goto("http://example.org/")).toBe("http://example.org/");
    expect(new TextDecoder().decode(await page.screenshot())).toBe("picture");
    expect(await page.text()).toBe("hello");
    expect(seen).toEqual([{ event: "navigated", url: "http://example.org/" }]);
    expect(await failureOf(page.click("a"))).toMatchObject({ code: "op.invalid_input" });
    await session.close();
    await failureOf(page.text());
  });

  it("is needed by a page", async () => {
    await using here = await world();
    const session = await opened(here, { webSocket: null });
    expect(await failureOf(session.page())).toBeInstanceOf(NimbusInputError);
  });
});
