import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Nimbus } from "../../src/index.js";
import { spec, START } from "./place.js";
import { Server } from "./server.mjs";

const there = process.env["NIMBUS_BIN"] !== undefined && process.env["NIMBUS_TEST_IMAGE"] !== undefined;

describe.skipIf(!there)("a server that is killed", () => {
  let server: Server;
  beforeAll(async () => {
    server = await Server.start();
  });
  afterAll(() => server.remove());

  it("is come back to: commands go on, and no byte of them is lost", async () => {
    const nimbus = new Nimbus({ endpoint: server.url, token: server.token, tenantId: "restart" });
    await nimbus.tenants.create({ id: "restart" });
    const sandbox = await (await nimbus.sandboxes.create({ profile: "worker", spec: spec() })).wait("ready", START);
    // Ends when it is told to, so that it cannot be over before the server is back.
    const script = 'i=0; while [ ! -e /tmp/end ]; do echo "line $i"; i=$((i+1)); sleep 0.05; done; echo "last $i"';
    const command = sandbox.exec({ argv: ["sh", "-c", script] });
    const lines: string[] = [];
    let rest = "";
    let again: Promise<void> | undefined;
    let told = false;
    for await (const event of command) {
      if (event.kind === "exit") expect(event.exitCode).toBe(0);
      if (event.kind !== "stdout") continue;
      const parts = (rest + event.text).split("\n");
      rest = parts.pop() ?? "";
      lines.push(...parts);
      if (lines.length > 10) again ??= server.halt("SIGKILL").then(() => server.boot());
      if (again !== undefined && !told && lines.length > 40) {
        told = true;
        await again;
        await sandbox.files.write("/tmp/end", "");
      }
    }
    expect(rest).toBe("");
    expect(lines).toEqual([...Array.from({ length: lines.length - 1 }, (_, index) => `line ${index}`), `last ${lines.length - 1}`]);
    expect(lines.length).toBeGreaterThan(40);
    await nimbus.tenants.delete({ id: "restart" });
  }, 120_000);
});
