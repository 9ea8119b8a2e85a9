import fs from "node:fs";
import { expect, signIn, story, title, type Locator, type Page } from "../src/story";
import { IMAGE } from "../src/world";

// Needs a container engine that has the image; without one nothing here can start.
const test = story("workloads", { settings: { TENANT_POLICY: "resources,ports,egress,mounts", NIMBUS_SANDBOX_WARM: "1" } });

test.describe.configure({ timeout: 120_000 });

/** What the terminal shows, as text. */
function screen(page: Page): Locator {
  return page.locator(".xterm-accessibility-tree");
}

async function shell(page: Page, name: string): Promise<void> {
  const terminal = page.getByRole("region", { name: "Terminal" });
  await expect(terminal.getByText("Attached")).toBeVisible({ timeout: 60_000 });
  await page.getByRole("textbox", { name: `Shell in ${name}` }).focus();
}

test("a sandbox is created, used and stopped", async ({ page, world }, info) => {
  await signIn(page, await world.admin());
  await page.goto("/sandboxes");
  await expect(page.getByRole("heading", { name: "No sandboxes yet" })).toBeVisible();
  await page.getByRole("link", { name: "Create sandbox" }).click();
  await expect(title(page, "Create sandbox")).toBeVisible();
  await page.getByRole("combobox", { name: "Image" }).fill(IMAGE);
  await page.keyboard.press("Escape");
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("first-steps");
  await page.getByRole("button", { name: /^Environment/ }).click();
  await page.getByRole("button", { name: "Add variable" }).click();
  await page.getByLabel("Name 1").fill("GREETING");
  await page.getByLabel("Value 1").fill("good morning");
  await expect(page.getByRole("region", { name: "SDK snippet" })).toContainText(`reference: "${IMAGE}"`);
  await page.getByRole("button", { name: "Create sandbox" }).click();

  // Its terminal.
  await expect(title(page, "first-steps")).toBeVisible();
  await expect(page.getByText("Ready", { exact: true })).toBeVisible({ timeout: 60_000 });
  await shell(page, "first-steps");
  await page.keyboard.type("echo $((6 * 7)) and $GREETING\n");
  await expect(screen(page)).toContainText("42 and good morning");
  await page.keyboard.type("echo written inside > /tmp/inside.txt; stty size\n");
  await expect(screen(page)).toContainText(/\d+ \d+/);
  // The keyboard gets out of it.
  await page.keyboard.press("F6");
  await expect(page.getByRole("textbox", { name: "Shell in first-steps" })).not.toBeFocused();

  // Its files: one fetched, one put there.
  const files = page.getByRole("region", { name: "Files" });
  await files.getByRole("button", { name: "tmp", exact: true }).click();
  const entry = files.getByRole("link", { name: /inside\.txt/ });
  await expect(entry).toBeVisible();
  const [download] = await Promise.all([page.waitForEvent("download"), entry.click()]);
  expect(fs.readFileSync(await download.path(), "utf8")).toBe("written inside\n");
  const here = info.outputPath("outside.txt");
  fs.writeFileSync(here, "written outside\n");
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), files.getByRole("button", { name: "Upload", exact: true }).click()]);
  await chooser.setFiles(here);
  await expect(page.getByText("outside.txt uploaded")).toBeVisible();
  await expect(files.getByRole("link", { name: /outside\.txt/ })).toBeVisible();
  await page.getByRole("textbox", { name: "Shell in first-steps" }).focus();
  await page.keyboard.type("cat /tmp/outside.txt\n");
  await expect(screen(page)).toContainText("written outside");
  await files.getByRole("button", { name: "Actions for outside.txt" }).click();
  await page.getByRole("menuitem", { name: "Delete" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Delete" }).click();
  await expect(files.getByRole("link", { name: /outside\.txt/ })).toBeHidden();

  // One command, from its tab.
  await page.getByRole("tab", { name: "Commands" }).click();
  await page.getByLabel("Command", { exact: true }).fill("sh -c 'echo to the log; exit 3'");
  await page.keyboard.press("Enter");
  await expect(page.getByText("Ended with code 3")).toBeVisible();
  await expect(page.getByRole("region", { name: "output", exact: true })).toContainText("to the log");

  // And its end.
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await expect(page.getByText("Stopped", { exact: true })).toBeVisible({ timeout: 30_000 });
  await expect(page.getByRole("region", { name: "Terminal" })).toContainText("It is stopped.");
  await page.getByRole("button", { name: "Actions" }).click();
  await page.getByRole("menuitem", { name: "Delete" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Delete sandbox" }).click();
  await expect(title(page, "Sandboxes")).toBeVisible();
  await expect(page.getByRole("row", { name: /first-steps/ })).toBeHidden();
});

test("a shell ends and is started again, and the log is followed", async ({ page, world }) => {
  const admin = await world.admin();
  const id = await world.sandbox(admin, "talker", { process: { argv: ["sh", "-c", "i=0; while true; do i=$((i + 1)); echo line $i; sleep 1; done"] } });
  await signIn(page, admin);
  await page.goto(`/sandboxes/${id}`);
  await shell(page, "talker");
  await page.getByRole("tab", { name: "Log" }).click();
  const log = page.getByRole("log", { name: "log" });
  await expect(log).toContainText("line 1");
  await expect(log).toContainText("line 4");
  // What was typed stays on the screen while the tabs change.
  await page.getByRole("textbox", { name: "Shell in talker" }).focus();
  await page.keyboard.type("mine=kept\n");
  await page.keyboard.type("echo it is $mine\n");
  await expect(screen(page)).toContainText("it is kept");
  await page.keyboard.type("exit 7\n");
  await expect(page.getByText("The program ended with code 7.")).toBeVisible();
  await page.getByRole("button", { name: "Start again" }).click();
  await shell(page, "talker");
  await page.keyboard.type("echo again $mine.\n");
  await expect(screen(page)).toContainText("again .");
});

test("a port is opened in a browser, and more time is given", async ({ page, world, context }) => {
  const admin = await world.admin();
  const script = "mkdir /tmp/www; echo '<h1>hello from inside</h1>' > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";
  const id = await world.sandbox(admin, "web", { process: { argv: ["sh", "-c", script] }, ports: [{ guestPort: 8080, protocol: "http" }] });
  await signIn(page, admin);
  await page.goto(`/sandboxes/${id}`);
  await page.getByRole("tab", { name: /^Preview/ }).click();
  await expect(page.getByLabel("Port inside")).toHaveValue("8080");
  await page.getByRole("button", { name: "Make link" }).click();
  const [other] = await Promise.all([context.waitForEvent("page"), page.getByRole("link", { name: "Open in a new tab" }).click()]);
  await expect(other.getByRole("heading", { name: "hello from inside" })).toBeVisible();
  await other.close();
  await page.getByRole("button", { name: "Actions", exact: true }).click();
  await page.getByRole("menuitem", { name: "Extend by 8 hours from now" }).click();
  await expect(page.getByText(/stops in [78] h/)).toBeVisible();
});

test("a service is created, runs, is changed by two, and stops", async ({ page, world }) => {
  const admin = await world.admin();
  const tenant = await world.tenant(admin);
  await signIn(page, admin);
  await page.goto("/services/new");
  await page.getByRole("textbox", { name: "Name" }).fill("ticker");
  await page.getByRole("combobox", { name: "Image" }).fill(IMAGE);
  await page.keyboard.press("Escape");
  await page.getByRole("textbox", { name: "Command" }).fill("sh -c 'echo it ticks; exec sleep 3600'");
  await page.getByRole("button", { name: "Create service" }).click();
  await expect(title(page, "ticker")).toBeVisible();
  await expect(page.getByText("Ready", { exact: true }).first()).toBeVisible({ timeout: 60_000 });
  await page.getByRole("tab", { name: "Log" }).click();
  await expect(page.getByRole("log", { name: "log" })).toContainText("it ticks");
  await expect(page.getByRole("link", { name: "Terminal and files" })).toBeVisible();

  // Somebody else is faster.
  await page.getByRole("button", { name: "Actions" }).click();
  await page.getByRole("menuitem", { name: "Change definition" }).click();
  const editor = page.getByLabel("Definition, from generation 1");
  await expect(editor).toBeVisible();
  const backend = { kind: "external", endpoint: { url: "https://example.org" }, auth: { kind: "none" }, health: { kind: "http", path: "/" } };
  await world.work(admin, "PUT", `/api/tenants/${tenant}/services/ticker`, { metadata: { generation: 1, labels: { owner: "somebody-else" } }, spec: { backend } });
  await editor.fill(JSON.stringify({ labels: { owner: "me" }, backend: { kind: "builtIn", provider: "loadBalancer" } }));
  await page.getByRole("button", { name: "Save as generation 2" }).click();
  const conflict = page.getByRole("alert");
  await expect(conflict).toContainText("You began with generation 1; it is at 2 now.");
  await expect(conflict.getByRole("region", { name: "Differences" })).toContainText("somebody-else");
  await conflict.getByRole("button", { name: "Save mine over it" }).click();
  await expect(title(page, "ticker")).toBeVisible();
  await expect(page.getByText("Declared", { exact: true })).toBeVisible();
  await expect(page.getByText("owner=me")).toBeVisible();
  await page.getByRole("button", { name: "Actions" }).click();
  await page.getByRole("menuitem", { name: "Delete" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Delete service" }).click();
  await expect(title(page, "Services")).toBeVisible();
  await expect(page.getByRole("heading", { name: "No services yet" })).toBeVisible();
});

test("a session is opened and closed", async ({ page, world }) => {
  const admin = await world.admin();
  const id = await world.sandbox(admin, "leased");
  await signIn(page, admin);
  await page.goto(`/sessions?target=sandbox:${id}`);
  const dialog = page.getByRole("dialog", { name: "Open session" });
  await expect(dialog).toContainText("leased");
  await dialog.getByRole("button", { name: "Open session" }).click();
  await expect(title(page, "Session on leased")).toBeVisible();
  await shell(page, "leased");
  await page.keyboard.type("echo by lease $((2 + 3))\n");
  await expect(screen(page)).toContainText("by lease 5");
  await expect(page.getByRole("region", { name: "Files" }).getByRole("button", { name: "tmp", exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Close session" }).click();
  await expect(page.getByText("Closed", { exact: true })).toBeVisible();
  await page.goto("/sessions");
  await page.getByRole("radio", { name: /^All/ }).click();
  await expect(page.getByRole("grid", { name: "Sessions" }).getByRole("row", { name: /leased/ })).toContainText("closed by its client");
});

test("a key reaches its tenant and no other, and a secret is kept unseen", async ({ page, world }) => {
  const admin = await world.admin();
  const tenant = await world.tenant(admin);
  await signIn(page, admin);
  await page.goto("/access");
  await page.getByRole("button", { name: "Create API key" }).click();
  const dialog = page.getByRole("dialog", { name: "Create API key" });
  await dialog.getByLabel("Name", { exact: true }).fill("runner");
  await dialog.getByRole("button", { name: "Create API key" }).click();
  const key = (await dialog.getByRole("region", { name: "API key" }).innerText()).trim();
  expect(key).toMatch(/^nimbus_ak_/);
  await dialog.getByRole("button", { name: "Done" }).click();
  const use = async (where: string) => (await fetch(`${world.url}/api/tenants/${where}/sandboxes`, { headers: { "x-nimbus-api-key": key } })).status;
  expect(await use(tenant)).toBe(200);

  await page.getByRole("button", { name: "Keep a secret" }).click();
  const secret = page.getByRole("dialog", { name: "Keep a secret" });
  await secret.getByLabel("Secret name").fill("registry-token");
  await secret.getByLabel("Value").fill("s3cret-value");
  await secret.getByRole("button", { name: "Keep secret" }).click();
  await expect(page.getByRole("grid", { name: "Secrets" }).getByRole("row", { name: /registry-token/ })).toBeVisible();
  await page.reload();
  await expect(page.getByRole("grid", { name: "Secrets" })).toBeVisible();
  await expect(page.getByText("s3cret-value")).toBeHidden();

  // Another tenant has neither.
  await page.getByRole("button", { name: /^Tenant/ }).click();
  await page.getByRole("menuitem", { name: "Create tenant" }).click();
  await page.getByLabel("Id").fill("search-team");
  await page.getByRole("button", { name: "Create tenant" }).click();
  await expect(page).toHaveURL(/tenant=search-team/);
  await expect(page.getByRole("heading", { name: "No API keys yet" })).toBeVisible();
  expect(await use("search-team")).toBe(404);
});

// Last, because it takes the server away.
test("a terminal finds its shell again after the server was away", async ({ page, world }) => {
  const admin = await world.admin();
  const id = await world.sandbox(admin, "survivor");
  await signIn(page, admin);
  await page.goto(`/sandboxes/${id}`);
  await shell(page, "survivor");
  await page.keyboard.type("mine=kept; echo it is $mine\n");
  await expect(screen(page)).toContainText("it is kept");
  await world.halt();
  const terminal = page.getByRole("region", { name: "Terminal" });
  await expect(terminal.getByText(/Lost, trying again|Opening a session|Attaching/)).toBeVisible();
  await world.boot();
  await shell(page, "survivor");
  await page.keyboard.type("echo still $mine.\n");
  await expect(screen(page)).toContainText("still kept.");
});
