import tailwindcss from "@tailwindcss/vite";
import optimizeLocales from "@react-aria/optimize-locales-plugin";
import react from "@vitejs/plugin-react";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  // The interface speaks English; the other languages of React Aria would only weigh.
  plugins: [react(), tailwindcss(), { ...optimizeLocales.vite({ locales: ["en-US"] }), enforce: "pre" }],
  resolve: { alias: { "~": fileURLToPath(new URL("./src", import.meta.url)) } },
  server: {
    // `npm run dev` talks to a Nimbus started beside it.
    proxy: { "/api": process.env["NIMBUS_URL"] ?? "http://127.0.0.1:8080" },
  },
  build: {
    target: ["chrome123", "firefox121", "safari17.5"],
    // Everything stays a file of its own, so that a strict content security policy holds.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  test: {
    environment: "happy-dom",
    environmentOptions: { happyDOM: { url: "http://nimbus.test/" } },
    setupFiles: ["src/mocks/setup.ts"],
    maxWorkers: 1,
    testTimeout: 30_000,
    css: false,
  },
});
