// Fails the build when what the browser needs for the first page grows past the budget.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT_KIB = 250;
const dist = new URL("../dist/", import.meta.url);
const html = readFileSync(new URL("index.html", dist), "utf8");
const first = new Set(["index.html"]);
for (const [, path] of html.matchAll(/(?:src|href)="\/([^"]+)"/g)) first.add(path);

// Static imports of the entry arrive with it even where the page does not preload them.
const queue = [...first].filter((path) => path.endsWith(".js"));
for (const path of queue) {
  const text = readFileSync(new URL(path, dist), "utf8");
  for (const [, name] of text.matchAll(/(?:from|import)\s*"\.\/([^"]+\.js)"/g)) {
    const next = `assets/${name}`;
    if (!first.has(next)) {
      first.add(next);
      queue.push(next);
    }
  }
}

let total = 0;
for (const path of first) total += gzipSync(readFileSync(new URL(path, dist))).length;
const kib = (total / 1024).toFixed(1);
console.log(`first load: ${kib} KiB gzip in ${first.size} files (limit ${LIMIT_KIB} KiB)`);
if (total > LIMIT_KIB * 1024) process.exit(1);
