import { execFileSync } from "node:child_process";
import { look } from "../src/look";
import { expect, signIn, story } from "../src/story";

const DESKTOP = "nimbus.test/desktop:1";

function hasImage(): boolean {
  try {
    execFileSync("docker", ["image", "inspect", DESKTOP], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

const test = story("desktop", { settings: { NIMBUS_SANDBOX_WARM: "0" } });

test.describe.configure({ timeout: 150_000 });

test("the browser inside a sandbox is looked at", async ({ page, world }) => {
  test.skip(!hasImage(), `the engine has no image ${DESKTOP}, which has a browser in it`);
  const admin = await world.admin();
  const tenant = await world.tenant(admin);
  const spec = { owner: { kind: "standalone", displayName: "screen" }, backend: "container", root: { kind: "oci_image", source: { kind: "reference", reference: DESKTOP } }, ttlMs: 600_000 };
  const made = await world.work<{ metadata: { id: string } }>(admin, "POST", `/api/tenants/${tenant}/sandboxes`, { profile: "desktop", spec });
  await signIn(page, admin);
  await page.goto(`/sandboxes/${made.metadata.id}`);
  await expect(page.getByText("Ready", { exact: true })).toBeVisible({ timeout: 90_000 });
  await page.getByRole("tab", { name: "Screen" }).click();
  await page.getByLabel("Address").fill("data:text/html,<h1>hello screen</h1>");
  await page.getByRole("button", { name: "Take a screenshot" }).click();
  const image = page.getByRole("img", { name: "The browser in screen" });
  await expect(image).toBeVisible({ timeout: 60_000 });
  expect(await image.evaluate((node: HTMLImageElement) => node.naturalWidth)).toBeGreaterThan(300);
  await look(page, "sandbox-screen");
});
