import { look } from "../src/look";
import { Cluster } from "../src/cluster";
import { expect, story, title } from "../src/story";

const test = story("not-configured", { cluster: false });

test("a server without a cluster says what it needs, and goes on once it has it", async ({ page, world }, info) => {
  test.setTimeout(90_000);
  await page.goto("/");
  await expect(title(page, "Create account")).toBeVisible();
  await page.getByLabel("Name").fill("Ada Lovelace");
  await page.getByLabel("Email").fill("ada@example.org");
  await page.getByLabel("Password").fill("an analytical engine");
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(title(page, "Not configured yet")).toBeVisible();
  const missing = page.getByRole("region", { name: "Missing settings" });
  for (const name of ["PROXMOX_HOST", "PROXMOX_TOKEN_ID", "PROXMOX_TOKEN_SECRET", "IP_POOL_START", "IP_POOL_END", "GATEWAY_IP"]) {
    await expect(missing.getByRole("listitem").filter({ hasText: name })).toContainText("Missing");
  }
  await expect(page.getByRole("region", { name: "Settings to fill in" })).toContainText("PROXMOX_HOST=");
  await look(page, "not-configured");
  // Accounts work.
  await page.goto("/access");
  await expect(title(page, "Keys and tokens")).toBeVisible();
  await page.goto("/machines");
  await expect(title(page, "Not configured yet")).toBeVisible();

  await world.halt();
  const cluster = await Cluster.start(info.outputPath(), 0.02);
  await world.boot({ ...cluster.settings, IP_POOL_START: "10.77.0.50", IP_POOL_END: "10.77.0.59", GATEWAY_IP: "10.77.0.1" });
  await expect(title(page, "Machines")).toBeVisible({ timeout: 40_000 });
  await page.goto("/machines/new");
  await page.getByRole("textbox", { name: "Hostname" }).fill("at-last");
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "at-last is ready")).toBeVisible();
  await cluster.stop();
});
