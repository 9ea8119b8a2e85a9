import { expect, signIn, story, title } from "../src/story";

const test = story("access");

test("a token is shown once, works, and is revoked", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.goto("/access");
  await expect(title(page, "Keys and tokens")).toBeVisible();
  await page.getByRole("button", { name: "Create token" }).click();
  const dialog = page.getByRole("dialog", { name: "Create token" });
  await expect(dialog.getByRole("textbox", { name: "Name" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(dialog).toContainText("Enter a name.");
  await page.keyboard.type("laptop");
  await dialog.getByRole("checkbox", { name: /Change machines/ }).focus();
  await page.keyboard.press("Space");
  await dialog.getByRole("button", { name: /Expires after/ }).click();
  await page.getByRole("option", { name: "30 days" }).click();
  await dialog.getByRole("button", { name: "Create token" }).click();
  const shown = dialog.getByRole("region", { name: "token", exact: true });
  await expect(shown).toContainText(/^nbp_/);
  const token = (await shown.textContent()) ?? "";
  await dialog.getByRole("button", { name: "Done" }).click();

  const list = page.getByRole("grid", { name: "Tokens" });
  const line = list.getByRole("row", { name: "laptop" });
  await expect(line).toContainText("machines:read");
  await expect(line).not.toContainText("machines:write");
  await expect(page.getByText(token)).toBeHidden();
  await page.reload();
  await expect(line).toContainText("never");
  await expect(page.getByText(token)).toBeHidden();

  const headers = { authorization: `Bearer ${token}` };
  const use = async (method: "GET" | "POST") =>
    (await fetch(`${world.url}/api/vms`, { method, headers: { ...headers, "content-type": "application/json" }, ...(method === "POST" ? { body: '{"hostname":"no","tier":"small","os_template":"debian-12","generate_key":true}' } : {}) })).status;
  expect(await use("GET")).toBe(200);
  expect(await use("POST")).toBe(403);

  await line.getByRole("button", { name: "Revoke laptop" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Revoke token" }).click();
  await expect(line).toBeHidden();
  expect(await use("GET")).toBe(401);
});

test("browsers elsewhere are listed and signed out", async ({ page, world, browser }) => {
  const admin = await world.admin();
  const elsewhere = await browser.newContext({ baseURL: world.url, userAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0" });
  const far = await elsewhere.newPage();
  await signIn(far, admin);
  await far.goto("/machines");
  await expect(title(far, "Machines")).toBeVisible();

  await signIn(page, admin);
  await page.goto("/access");
  const sessions = page.getByRole("grid", { name: "Browsers" });
  await expect(sessions.getByRole("row", { name: /this one/ })).toHaveCount(1);
  await sessions.getByRole("button", { name: /^Sign out Firefox/ }).click();
  await expect(sessions.getByRole("row", { name: /Firefox/ })).toBeHidden();
  await far.goto("/machines");
  await expect(title(far, "Sign in")).toBeVisible();
  await elsewhere.close();
});

test("a new password is asked for with the old one", async ({ page, world }) => {
  const member = await world.member("Mary Shelley", "mary@example.org");
  await signIn(page, member);
  await page.goto("/machines");
  await page.getByRole("button", { name: "Account of Mary Shelley" }).click();
  await page.getByRole("menuitem", { name: "Change password" }).click();
  const dialog = page.getByRole("dialog", { name: "Change password" });
  await dialog.getByLabel("Current password").fill("not this one");
  await dialog.getByLabel("New password").fill("frankenstein 1818");
  await page.keyboard.press("Enter");
  await expect(dialog.getByRole("alert").or(dialog.locator("[aria-invalid=true]")).first()).toBeVisible();
  await dialog.getByLabel("Current password").fill(member.password);
  await dialog.getByLabel("New password").fill("frankenstein 1818");
  await page.keyboard.press("Enter");
  await expect(dialog).toBeHidden();
  await page.context().clearCookies();
  await signIn(page, { ...member, password: "frankenstein 1818" });
});
