import { screen, waitFor } from "@testing-library/react";
import { http } from "msw";
import { describe, expect, it } from "vitest";
import { safeNext } from "~/app/router";
import * as data from "~/mocks/data";
import { ok, refuse } from "~/mocks/handlers";
import { renderApp } from "~/mocks/render";
import { server } from "~/mocks/server";

function signedOut() {
  let session = false;
  server.use(http.get("*/api/me", () => (session ? ok(data.me) : refuse(401, "auth.unauthorized", "Sign in first."))));
  return () => {
    session = true;
  };
}

describe("sign in", () => {
  it("leads back to where one wanted to go", async () => {
    const open = signedOut();
    const sent: unknown[] = [];
    server.use(
      http.post("*/api/auth/login", async ({ request }) => {
        sent.push(await request.json());
        open();
        return ok(data.me);
      }),
    );
    const { user, router } = renderApp("/addresses");
    expect(await screen.findByRole("heading", { level: 1, name: "Sign in" })).toBeVisible();
    await user.type(screen.getByLabelText("Email"), " ada@example.org ");
    await user.type(screen.getByLabelText("Password"), "correct horse");
    await user.click(screen.getByRole("button", { name: "Sign in" }));
    expect(await screen.findByRole("heading", { level: 1, name: "Addresses" })).toBeVisible();
    expect(router.state.location.pathname).toBe("/addresses");
    expect(sent).toEqual([{ email: "ada@example.org", password: "correct horse" }]);
  });

  it("says what is missing before it asks the server", async () => {
    signedOut();
    const { user } = renderApp("/sign-in");
    await user.click(await screen.findByRole("button", { name: "Sign in" }));
    expect(await screen.findByText("Enter your password.")).toBeVisible();
    expect(screen.getByLabelText("Email")).toBeInvalid();
  });

  it("shows the refusal and keeps what was typed", async () => {
    signedOut();
    server.use(http.post("*/api/auth/login", () => refuse(401, "auth.unauthorized", "Invalid email or password")));
    const { user } = renderApp("/sign-in");
    await user.type(await screen.findByLabelText("Email"), "ada@example.org");
    await user.type(screen.getByLabelText("Password"), "wrong");
    await user.keyboard("{Enter}");
    expect(await screen.findByRole("alert")).toHaveTextContent("Invalid email or password");
    expect(screen.getByLabelText("Email")).toHaveValue("ada@example.org");
  });

  it("only follows addresses of its own", () => {
    expect(safeNext("/machines")).toBe("/machines");
    expect(safeNext("//evil.example")).toBeUndefined();
    expect(safeNext("/\\evil.example")).toBeUndefined();
    expect(safeNext("https://evil.example")).toBeUndefined();
  });
});

describe("create account", () => {
  it("tells the first user that they become the administrator, then signs in", async () => {
    const open = signedOut();
    const calls: string[] = [];
    server.use(
      http.get("*/api/setup/status", () => ok({ configured: true, needs_admin_setup: calls.length === 0, missing: [] })),
      http.post("*/api/auth/register", () => {
        calls.push("register");
        return ok(data.me, 201);
      }),
      http.post("*/api/auth/login", () => {
        calls.push("login");
        open();
        return ok(data.me);
      }),
    );
    const { user } = renderApp("/");
    expect(await screen.findByRole("heading", { level: 1, name: "Create account" })).toBeVisible();
    expect(await screen.findByText("You become the administrator")).toBeVisible();
    await user.type(screen.getByLabelText("Name"), "Ada");
    await user.type(screen.getByLabelText("Email"), "ada@example.org");
    await user.type(screen.getByLabelText("Password"), "short");
    await user.click(screen.getByRole("button", { name: "Create account" }));
    expect(await screen.findByText("3 more characters needed.")).toBeVisible();
    expect(calls).toEqual([]);
    await user.type(screen.getByLabelText("Password"), " but longer");
    await user.click(screen.getByRole("button", { name: "Create account" }));
    expect(await screen.findByRole("heading", { level: 1, name: "Machines" })).toBeVisible();
    expect(calls).toEqual(["register", "login"]);
  });

  it("puts the refusal of a field at that field", async () => {
    signedOut();
    server.use(
      http.post("*/api/auth/register", () => refuse(400, "op.invalid_input", "This address cannot be used.", { detail: { field: "email" } })),
    );
    const { user } = renderApp("/register");
    await user.type(await screen.findByLabelText("Name"), "Ada");
    await user.type(screen.getByLabelText("Email"), "ada@localhost");
    await user.type(screen.getByLabelText("Password"), "long enough");
    await user.click(screen.getByRole("button", { name: "Create account" }));
    await waitFor(() => {
      expect(screen.getByLabelText("Email")).toBeInvalid();
    });
    expect(screen.getByText("This address cannot be used.")).toBeVisible();
  });
});
