import "@testing-library/jest-dom/vitest";
import { cleanup, configure } from "@testing-library/react";
import { afterAll, afterEach, beforeAll, vi } from "vitest";
import { FakeEventSource } from "./event-source";
import { server } from "./server";

// Machines that build something else at the same time are slow.
configure({ asyncUtilTimeout: 5_000 });
vi.stubGlobal("EventSource", FakeEventSource);

beforeAll(() => {
  server.listen({ onUnhandledRequest: "error" });
});
afterEach(() => {
  cleanup();
  server.resetHandlers();
  sessionStorage.clear();
  localStorage.clear();
  FakeEventSource.all.length = 0;
});
afterAll(() => {
  server.close();
});
