const MAX = 63;

/** What is wrong with a host name (RFC 1123 label, lower case), in words; null when nothing is. */
export function hostnameProblem(name: string): string | null {
  if (name === "") return "Enter a host name.";
  if (name.length > MAX) return `Use at most ${MAX} characters; this has ${name.length}.`;
  if (/[A-Z]/.test(name)) return "Use lower case letters.";
  const bad = /[^a-z0-9-]/.exec(name);
  if (bad) return bad[0] === " " ? "Use a hyphen instead of a space." : `“${bad[0]}” is not allowed. Use letters, digits and hyphens.`;
  if (name.startsWith("-")) return "Start with a letter or a digit.";
  if (name.endsWith("-")) return "End with a letter or a digit.";
  return null;
}

/** The nearest valid name to what was typed; null when nothing usable is left or it is valid already. */
export function repairHostname(name: string): string | null {
  const fixed = name
    .normalize("NFKD")
    .toLowerCase()
    .replace(/ß/g, "ss")
    .replace(/[\u0300-\u036f]/g, "")
    .replace(/[^a-z0-9-]+/g, "-")
    .replace(/-{2,}/g, "-")
    .slice(0, MAX)
    .replace(/^-+|-+$/g, "");
  return fixed === "" || fixed === name ? null : fixed;
}

const FIRST = ["amber", "brisk", "calm", "clear", "deep", "early", "fair", "high", "keen", "light", "mild", "north", "quiet", "swift", "warm", "wide"];
const SECOND = ["birch", "brook", "cedar", "cirrus", "cliff", "dune", "fjord", "grove", "heron", "lark", "meadow", "otter", "ridge", "spruce", "tern", "willow"];

/** A free, pronounceable name. `random` gives numbers in [0, 1). */
export function suggestHostname(taken: ReadonlySet<string>, random: () => number = Math.random): string {
  const pick = (words: readonly string[]) => words[Math.floor(random() * words.length)] ?? "machine";
  for (let attempt = 0; attempt < 50; attempt += 1) {
    const name = `${pick(FIRST)}-${pick(SECOND)}`;
    if (!taken.has(name)) return name;
  }
  let number = 1;
  while (taken.has(`machine-${number}`)) number += 1;
  return `machine-${number}`;
}

/** `web` → `web-2`, `web-2` → `web-3`: the next free one. */
export function nextHostname(name: string, taken: ReadonlySet<string>): string {
  const match = /^(.*?)-?(\d+)$/.exec(name);
  const base = match?.[1] !== undefined && match[1] !== "" ? match[1] : name;
  let number = match?.[2] !== undefined ? Number(match[2]) + 1 : 2;
  while (taken.has(`${base}-${number}`)) number += 1;
  return `${base}-${number}`;
}
