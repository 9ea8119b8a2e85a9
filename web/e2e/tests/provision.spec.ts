import fs from "node:fs";
import { choose, expect, PROVISION, row, signIn, steps, story, title, type Page } from "../src/story";

const test = story("provision");

async function whoHasFocus(page: Page): Promise<string> {
  return page.evaluate(() => document.activeElement?.getAttribute("name") ?? document.activeElement?.textContent ?? "");
}

test("a machine is ordered by keyboard, watched, reloaded half-way, used and deleted", async ({ page, world, context }) => {
  test.setTimeout(120_000);
  await signIn(page, await world.admin());
  await page.goto("/");
  await expect(title(page, "Machines")).toBeVisible();

  // From the empty list to the form, and through it, without the mouse.
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("dialog", { name: "Search and commands" })).toBeVisible();
  await page.keyboard.type("create m");
  await page.keyboard.press("Enter");
  await expect(title(page, "Create machine")).toBeVisible();
  await expect(page.getByRole("textbox", { name: "Hostname" })).toBeFocused();
  await page.keyboard.type("Web Server");
  await expect(page.getByText("Use lower case letters.")).toBeVisible();
  await page.keyboard.press("Tab");
  expect(await whoHasFocus(page)).toBe("web-server");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("textbox", { name: "Hostname" })).toHaveValue("web-server");
  await page.getByRole("textbox", { name: "Hostname" }).focus();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("radio", { name: /^Small/ })).toBeFocused();
  await page.keyboard.press("ArrowRight");
  await expect(page.getByRole("radio", { name: /^Medium/ })).toBeChecked();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("radio", { name: /Ubuntu 24.04/ })).toBeFocused();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("radio", { name: /Generate one/ })).toBeFocused();
  const plan = page.getByRole("complementary", { name: "What will happen" });
  await expect(plan).toContainText("It goes to pve");
  await page.keyboard.press("Tab");
  await expect(page.getByRole("button", { name: "Create machine" })).toBeFocused();

  // The world stops at the sixth step, so that there is a middle to look at.
  const start = world.cluster.gate.hold("POST", /\/status\/start$/);
  await page.keyboard.press("Enter");
  await expect(title(page, "Creating web-server")).toBeVisible();
  await start.reached;
  const halfWay = async (where: Page) => {
    await expect(steps(where)).toHaveCount(PROVISION.length);
    await expect(steps(where).nth(5)).toHaveAttribute("aria-current", "step");
    for (const [index, label] of PROVISION.entries()) {
      const state = index < 5 ? "done" : index === 5 ? "running" : "waiting";
      await expect(steps(where).nth(index)).toContainText(`${label}, ${state}`);
    }
  };
  await halfWay(page);
  await page.reload();
  await expect(title(page, "Creating web-server")).toBeVisible();
  await halfWay(page);
  const other = await context.newPage();
  await other.goto("/machines");
  await expect(row(other, "web-server")).toContainText("Provisioning");
  await expect(row(other, "web-server")).toContainText("6 of 10 · Start VM");
  const operation = page.url();
  await other.goto(operation);
  await halfWay(other);
  await other.close();
  start.release();

  await expect(title(page, "web-server is ready")).toBeVisible();
  for (const [index, label] of PROVISION.entries()) await expect(steps(page).nth(index)).toContainText(`${label}, done`);
  const command = page.getByRole("region", { name: "SSH command" });
  await expect(command).toContainText(/ssh -i ~\/\.ssh\/\S+ ubuntu@10\.77\.0\.50$/);
  await page.getByRole("button", { name: "Copy SSH command" }).click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied).toMatch(/^ssh -i ~\/\.ssh\/\S+ ubuntu@10\.77\.0\.50$/);

  // The private key exists once.
  const downloading = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download private key" }).click();
  const download = await downloading;
  expect(copied).toContain(`~/.ssh/${download.suggestedFilename()} `);
  const key = fs.readFileSync(await download.path(), "utf8");
  expect(key).toMatch(/^-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END OPENSSH PRIVATE KEY-----\n$/);
  await expect(page.getByRole("region", { name: "Private key text" })).toContainText("BEGIN OPENSSH PRIVATE KEY");
  await page.reload();
  await expect(title(page, "web-server is ready")).toBeVisible();
  await expect(command).toBeVisible();
  await expect(page.getByText("BEGIN OPENSSH PRIVATE KEY")).toBeHidden();
  await expect(page.getByRole("button", { name: /private key/i })).toBeHidden();

  await page.getByRole("link", { name: "Open machine" }).click();
  await expect(title(page, "web-server")).toBeVisible();
  await expect(command).toContainText("ubuntu@10.77.0.50");
  await expect(page.getByRole("button", { name: /private key/i })).toBeHidden();
  await expect(page.getByText("2 vCPU · 2 GiB")).toBeVisible();

  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Machines" }).click();
  await expect(row(page, "web-server")).toContainText("Running");
  await expect(row(page, "web-server")).toContainText("10.77.0.50");

  // Deleting needs the name.
  await choose(page, "web-server", "Delete");
  const dialog = page.getByRole("alertdialog", { name: "Delete web-server" });
  await expect(dialog).toContainText("10.77.0.50 goes back to the pool");
  await dialog.getByRole("textbox").fill("web-serve");
  await page.keyboard.press("Enter");
  await expect(dialog).toBeVisible();
  expect(await world.cluster.guest("web-server")).toBeDefined();
  await dialog.getByRole("textbox").fill("web-server");
  const destroy = world.cluster.gate.hold("DELETE", /\/qemu\/\d+/);
  await dialog.getByRole("button", { name: "Delete machine" }).click();
  await expect(dialog).toBeHidden();
  await destroy.reached;
  await expect(row(page, "web-server")).toContainText("Deleting");
  destroy.release();
  await expect(row(page, "web-server")).toBeHidden();
  await expect(page.getByText("No machines yet")).toBeVisible();
  expect(await world.cluster.guest("web-server")).toBeUndefined();
});

test("the list follows what happens, whoever does it", async ({ page, world }) => {
  const admin = await world.admin();
  await world.machine(admin, "live-1");
  await signIn(page, admin);
  await page.goto("/machines");
  await expect(page.getByText("Live", { exact: true })).toBeVisible();
  await expect(row(page, "live-1")).toContainText("Running");

  await choose(page, "live-1", "Stop now");
  await expect(row(page, "live-1")).toContainText("Stopped");
  await page.getByRole("button", { name: "Actions for live-1" }).click();
  await expect(page.getByRole("menuitem", { name: "Shut down" })).toBeDisabled();
  await expect(page.getByRole("menuitem", { name: "Shut down" })).toContainText("The machine is not running.");
  await page.getByRole("menuitem", { name: "Start" }).click();
  await expect(row(page, "live-1")).toContainText("Running");

  // At the cluster's own pages.
  const guest = await world.cluster.guest("live-1");
  if (guest === undefined) throw new Error("the guest is gone");
  await world.cluster.power(guest, "stop");
  await expect(row(page, "live-1")).toContainText("Stopped");

  // From a terminal.
  await world.machine(admin, "live-2");
  await expect(row(page, "live-2")).toContainText("Running");
});

test("a key of one's own is checked before it is sent", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.goto("/machines/new");
  await page.getByRole("textbox", { name: "Hostname" }).fill("own-key");
  await page.getByText("Use my own").click();
  const field = page.getByRole("textbox", { name: "Public key" });
  await field.fill("-----BEGIN OPENSSH PRIVATE KEY-----");
  await expect(page.getByText("This is a private key.")).toBeVisible();
  await page.locator("input[type=file]").setInputFiles({
    name: "id_ed25519.pub",
    mimeType: "text/plain",
    buffer: Buffer.from("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9GbOcN2iW9sZKtGgem0HerkNINpu5tXStyV9DPMNz0 ada@laptop\n"),
  });
  await expect(page.getByText("ssh-ed25519 · ada@laptop")).toBeVisible();
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "own-key is ready")).toBeVisible();
  await expect(page.getByRole("region", { name: "SSH command" })).toContainText(/ssh ubuntu@/);
  await expect(page.getByRole("button", { name: /private key/i })).toBeHidden();

  // The name is taken now, and another one is offered.
  await page.goto("/machines/new");
  await page.getByRole("textbox", { name: "Hostname" }).fill("own-key");
  await expect(page.getByText("You already have a machine of this name.")).toBeVisible();
  await expect(page.getByRole("button", { name: "own-key-2" })).toBeVisible();
});
