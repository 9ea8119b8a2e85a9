import { expect, story, title } from "../src/story";

const test = story("first-user");

test("the first account becomes the administrator, and can leave and come back", async ({ page }) => {
  await page.goto("/");
  await expect(title(page, "Create account")).toBeVisible();
  await expect(page.getByText("You become the administrator")).toBeVisible();

  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page.getByText("Enter the name others know you by.")).toBeVisible();

  await page.getByLabel("Name").fill("Grace Hopper");
  await page.getByLabel("Email").fill("grace@example.org");
  await page.getByLabel("Password").fill("short");
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page.getByText("3 more characters needed.")).toBeVisible();

  await page.getByLabel("Password").fill("nanoseconds by the foot");
  await page.keyboard.press("Enter");
  await expect(title(page, "Machines")).toBeVisible();
  await expect(page.getByText("No machines yet")).toBeVisible();
  await expect(page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Nodes" })).toBeVisible();

  await page.getByRole("button", { name: "Account of Grace Hopper" }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await expect(title(page, "Sign in")).toBeVisible();

  // What needs a session asks for it, and then goes on to where it was.
  await page.goto("/access");
  await expect(title(page, "Sign in")).toBeVisible();
  await page.getByLabel("Email").fill("grace@example.org");
  await page.getByLabel("Password").fill("seconds by the mile");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("alert")).toContainText("Invalid email or password");
  await page.getByLabel("Password").fill("nanoseconds by the foot");
  await page.keyboard.press("Enter");
  await expect(title(page, "Keys and tokens")).toBeVisible();

  // The next one is not first any more.
  await page.context().clearCookies();
  await page.goto("/register");
  await expect(title(page, "Create account")).toBeVisible();
  await expect(page.getByText("You become the administrator")).toBeHidden();
  await page.getByLabel("Name").fill("Somebody Else");
  await page.getByLabel("Email").fill("grace@example.org");
  await page.getByLabel("Password").fill("nanoseconds by the foot");
  await page.keyboard.press("Enter");
  await expect(page.getByText(/this email address is taken/i)).toBeVisible();
  await expect(page.getByRole("link", { name: "Sign in with that address" })).toBeVisible();
});
