import { look } from "../src/look";
import { choose, expect, row, signIn, steps, story, title } from "../src/story";

// Every page and state on the way to a machine, with things on it.
const test = story("looks");

test.describe.configure({ timeout: 120_000 });

test("before there is a session", async ({ page, world }) => {
  await page.goto("/");
  await expect(page.getByText("You become the administrator")).toBeVisible();
  await page.getByRole("button", { name: "Create account" }).click();
  await look(page, "register-first");
  await world.admin();
  await page.goto("/sign-in");
  await expect(title(page, "Sign in")).toBeVisible();
  await look(page, "sign-in");
  await page.getByLabel("Email").fill("ada@example.org");
  await page.getByLabel("Password").fill("wrong");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("alert")).toBeVisible();
  await look(page, "sign-in-refused");
  await page.goto("/register");
  await expect(title(page, "Create account")).toBeVisible();
  await look(page, "register");
  await signIn(page, await world.admin());
  await page.goto("/machines");
  await expect(page.getByText("No machines yet")).toBeVisible();
  await look(page, "machines-empty");
});

test("machines", async ({ page, world }) => {
  const admin = await world.admin();
  for (const [hostname, tier, os_template] of [
    ["web-1", "small", "ubuntu-24.04"],
    ["build-runner", "large", "debian-12"],
    ["database", "medium", "ubuntu-22.04"],
    ["archive", "small", "debian-11"],
  ] as const) {
    await world.machine(admin, hostname, { tier, os_template });
  }
  await signIn(page, admin);
  await page.goto("/machines");
  await choose(page, "archive", "Stop now");
  await expect(row(page, "archive")).toContainText("Stopped");
  const held = world.cluster.gate.hold("POST", /\/status\/(reboot|shutdown)$/);
  await choose(page, "build-runner", "Reboot");
  await expect(row(page, "build-runner")).toContainText("Rebooting");
  await held.reached;
  await look(page, "machines");
  await page.getByRole("button", { name: "Actions for archive" }).click();
  await expect(page.getByRole("menu")).toBeVisible();
  await look(page, "machines-menu", { whole: false });
  await page.getByRole("menuitem", { name: "Delete" }).click();
  await expect(page.getByRole("alertdialog")).toBeVisible();
  await look(page, "machine-delete", { whole: false });
  await page.keyboard.press("Escape");
  held.release();
  await expect(row(page, "build-runner")).toContainText("Running");
  await row(page, "web-1").getByRole("rowheader").click();
  await expect(title(page, "web-1")).toBeVisible();
  await expect(page.getByText("web-1 is ready")).toBeVisible();
  await look(page, "machine");
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("dialog", { name: "Search and commands" })).toBeVisible();
  await look(page, "palette", { whole: false });
  await page.goto("/machines/vm_00000000000000000000000000000000");
  await expect(page.getByRole("alert")).toContainText("There is nothing here");
  await look(page, "machine-missing");
});

test("creating a machine", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.goto("/machines/new");
  await expect(page.getByRole("complementary", { name: "What will happen" })).toContainText("It goes to");
  await look(page, "create");
  await page.getByRole("textbox", { name: "Hostname" }).fill("Data Base");
  await page.getByText("Use my own").click();
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(page.getByText("Paste a public key, or choose its file.")).toBeVisible();
  await look(page, "create-refused");
  await page.getByText("Generate one").click();
  await page.getByRole("textbox", { name: "Hostname" }).fill("looked-at");
  const start = world.cluster.gate.hold("POST", /\/status\/start$/);
  await page.getByRole("button", { name: "Create machine" }).click();
  await start.reached;
  await expect(steps(page).nth(5)).toHaveAttribute("aria-current", "step");
  await look(page, "progress");
  const operation = page.url();
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Machines" }).click();
  await row(page, "looked-at").getByRole("rowheader").click();
  await expect(title(page, "looked-at")).toBeVisible();
  await expect(steps(page).nth(5)).toHaveAttribute("aria-current", "step");
  await look(page, "machine-provisioning");
  start.release();
  await page.goto(operation);
  await expect(title(page, "looked-at is ready")).toBeVisible();
  await look(page, "ready");
  await page.getByRole("button", { name: "Download private key" }).click();
  await expect(page.getByRole("region", { name: "Private key text" })).toBeVisible();
  await look(page, "ready-key");

  await world.cluster.order("POST /nodes/{node}/qemu/{vmid}/config", { mode: "fail", status: 500, message: "no space left on device", count: 0 });
  await world.cluster.order("PUT /nodes/{node}/qemu/{vmid}/config", { mode: "fail", status: 500, message: "no space left on device", count: 0 });
  await page.goto("/machines/new");
  await page.getByRole("textbox", { name: "Hostname" }).fill("broken");
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "broken could not be created")).toBeVisible();
  await look(page, "failed");
  await world.cluster.mend();
});
