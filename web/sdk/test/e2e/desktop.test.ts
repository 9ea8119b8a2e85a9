import { setTimeout as pause } from "node:timers/promises";
import { expect, it } from "vitest";
import { NimbusTransportError, type NimbusPage, type NimbusSession } from "../../src/index.js";
import { failureOf, socketClass } from "../world.js";
import { client, onServer, spec, START } from "./place.js";

const image = process.env["NIMBUS_TEST_DESKTOP_IMAGE"];

/** The page, once the browser listens. */
async function pageOf(session: NimbusSession): Promise<NimbusPage> {
  const until = Date.now() + 15_000;
  for (;;) {
    try {
      return await session.page();
    } catch (error) {
      if (!(error instanceof NimbusTransportError) || Date.now() > until) throw error;
      await pause(100);
    }
  }
}

onServer("a desktop", (tenant) => {
  it.skipIf(image === undefined)("has a browser that is driven", async () => {
    const nimbus = client(tenant, { webSocket: socketClass });
    const { owner, backend } = spec();
    const created = await nimbus.sandboxes.create({ profile: "desktop", spec: { owner, backend, root: { kind: "oci_image", source: { kind: "reference", reference: image ?? "" } } } });
    await using sandbox = await created.wait("ready", START);
    await using session = await nimbus.sessions.open({ target: { sandbox: { id: sandbox.id } }, channels: ["stdio", "files", "cdp", "page"] });
    await using page = await pageOf(session);
    const seen: string[] = [];
    page.on((event) => seen.push(event.event));
    const address = "data:text/html,<title>t</title><h1>hello</h1><input id=i><script>console.log('said')</script>";
    expect(await page.goto(address)).toBe(address);
    expect(await page.text()).toContain("hello");
    await page.fill("#i", "typed");
    expect(await page.evaluate("document.querySelector('#i').value")).toBe("typed");
    expect(Buffer.from(await page.screenshot()).subarray(1, 4).toString()).toBe("PNG");
    expect(await failureOf(page.click("#nothing"))).toMatchObject({ code: "op.not_found" });
    expect(seen).toEqual(expect.arrayContaining(["navigated", "console"]));

    const devtools = new socketClass(await session.cdpUrl(), "nimbus.session.v1");
    const answer = await new Promise<string>((resolve, reject) => {
      devtools.addEventListener("open", () => { devtools.send(JSON.stringify({ id: 1, method: "Browser.getVersion" })); });
      devtools.addEventListener("message", (event: MessageEvent<unknown>) => { resolve(String(event.data)); });
      devtools.addEventListener("error", () => { reject(new Error("no DevTools")); });
    });
    devtools.close();
    expect(JSON.parse(answer)).toMatchObject({ id: 1, result: { product: expect.stringContaining("Chrom") as string } });
  }, 90_000);
});
