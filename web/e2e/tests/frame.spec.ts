import { expect, row, signIn, story, title, type Page } from "../src/story";

const test = story("frame");

function background(page: Page): Promise<string> {
  return page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
}

test("light and dark follow the system until somebody chooses", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto("/machines");
  await expect(title(page, "Machines")).toBeVisible();
  const light = await background(page);
  await page.emulateMedia({ colorScheme: "dark" });
  await expect.poll(() => background(page)).not.toBe(light);
  const dark = await background(page);

  await page.getByRole("button", { name: /^Account of/ }).click();
  await page.getByRole("menuitemradio", { name: "Light" }).click();
  await expect.poll(() => background(page)).toBe(light);
  await page.reload();
  await expect(title(page, "Machines")).toBeVisible();
  expect(await background(page)).toBe(light);

  // And back, by keyboard.
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("dialog", { name: "Search and commands" })).toBeVisible();
  await page.keyboard.type("system");
  await page.keyboard.press("Enter");
  await expect.poll(() => background(page)).toBe(dark);
});

test("the palette goes everywhere by keyboard, and gives the focus back", async ({ page, world }) => {
  const admin = await world.admin();
  await world.machine(admin, "by-keyboard");
  await signIn(page, admin);
  await page.goto("/machines");
  await expect(title(page, "Machines")).toBeVisible();
  const palette = page.getByRole("dialog", { name: "Search and commands" });

  for (const [typed, heading] of [
    ["nodes", "Nodes"],
    ["addr", "Addresses"],
    ["keys", "Keys and tokens"],
    ["by-key", "by-keyboard"],
  ] as const) {
    await page.keyboard.press("Control+k");
    await expect(palette).toBeVisible();
    await page.keyboard.type(typed);
    await page.keyboard.press("Enter");
    await expect(palette).toBeHidden();
    await expect(title(page, heading)).toBeVisible();
  }

  await page.keyboard.press("Control+k");
  await expect(palette).toBeVisible();
  await page.keyboard.type("copy ssh command of by-keyboard");
  await page.keyboard.press("Enter");
  await expect(page.getByText("SSH command copied")).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toMatch(/^ssh /);

  await page.keyboard.press("Control+k");
  await expect(palette).toBeVisible();
  await page.keyboard.type("no such thing");
  await expect(palette).toContainText("Nothing matches.");
  await page.keyboard.press("Escape");
  await expect(palette).toBeHidden();

  // The list, its row and the row's menu.
  await page.goto("/machines");
  await expect(row(page, "by-keyboard")).toBeVisible();
  const grid = page.getByRole("grid", { name: "Machines" });
  for (let press = 0; press < 20 && !(await grid.evaluate((node) => node.contains(document.activeElement))); press += 1) {
    await page.keyboard.press("Tab");
  }
  await expect(row(page, "by-keyboard")).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(title(page, "by-keyboard")).toBeVisible();
});

test("a phone has everything the desk has", async ({ page, world }) => {
  const admin = await world.admin();
  await world.machine(admin, "pocket");
  await page.setViewportSize({ width: 390, height: 844 });
  await signIn(page, admin);
  await page.goto("/machines");
  await expect(row(page, "pocket")).toContainText("Running");
  const bar = page.getByRole("navigation", { name: "Main" });
  await bar.getByRole("link", { name: "Sandboxes" }).click();
  await expect(title(page, "Sandboxes")).toBeVisible();
  await bar.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Nodes" }).click();
  await expect(title(page, "Nodes")).toBeVisible();
  await bar.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Traces" }).click();
  await expect(title(page, "Traces")).toBeVisible();
  await bar.getByRole("link", { name: "Machines" }).click();
  await row(page, "pocket").getByRole("rowheader").click();
  await expect(title(page, "pocket")).toBeVisible();
  await expect(page.getByRole("region", { name: "SSH command" })).toBeVisible();
  await page.goto("/machines/new");
  await page.getByRole("textbox", { name: "Hostname" }).fill("pocket-2");
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "pocket-2 is ready")).toBeVisible();
  const wider = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  for (const path of ["/machines", "/machines/new", "/sandboxes", "/sandboxes/new", "/services", "/services/new", "/sessions", "/access", "/nodes", "/hosts", "/addresses", "/activity", "/traces"]) {
    await page.goto(path);
    await expect(page.getByRole("heading", { level: 1 })).toBeVisible();
    expect(await wider(), `${path} is wider than the screen`).toBe(0);
  }
});

// Last, because it takes the server away.
test("a server that goes away is said, and its return goes on by itself", async ({ page, world }) => {
  test.setTimeout(90_000);
  const admin = await world.admin();
  await world.machine(admin, "survivor");
  await signIn(page, admin);
  await page.goto("/machines");
  await expect(row(page, "survivor")).toContainText("Running");
  await expect(page.getByText("Live", { exact: true })).toBeVisible();
  await world.halt();
  await expect(page.getByText("Reconnecting, refreshing every 5 s")).toBeVisible();
  // What was known stays on the page, marked as old.
  await expect(row(page, "survivor")).toBeVisible();
  await expect(page.getByText("The list could not be refreshed; it may be out of date.")).toBeVisible({ timeout: 40_000 });

  // Acting tells that it did not work.
  await page.getByRole("button", { name: "Actions for survivor" }).click();
  await page.getByRole("menuitem", { name: "Reboot" }).click();
  await expect(page.getByText("Reboot of survivor was refused")).toBeVisible();
  await expect(page.getByText(/Nimbus does not answer/).first()).toBeVisible();

  await world.boot();
  await expect(page.getByText("Live", { exact: true })).toBeVisible({ timeout: 40_000 });
  await expect(page.getByText("The list could not be refreshed")).toBeHidden();
  await expect(row(page, "survivor")).toContainText("Running");
});
