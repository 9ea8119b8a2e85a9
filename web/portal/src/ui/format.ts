const KIB = 1024;

/** Bytes in binary units with at most one decimal: `1.5 GiB`. */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let amount = value;
  let unit = 0;
  while (amount >= KIB && unit < units.length - 1) {
    amount /= KIB;
    unit += 1;
  }
  const digits = amount >= 100 || Number.isInteger(amount) ? 0 : 1;
  return `${amount.toFixed(digits)} ${units[unit] ?? ""}`;
}

export function mib(value: number): string {
  return bytes(value * KIB * KIB);
}

/** A duration as a person reads it: `640 ms`, `4.2 s`, `1 min 05 s`. */
export function duration(ms: number): string {
  if (ms < 1) return `${Math.max(0, Math.round(ms * 1000))} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${String(Math.floor((ms % 60_000) / 1000)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** Whole seconds that count up: `12 s`, `1:04`. */
export function elapsed(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** `just now`, `5 min`, `3 h`, `12 d`, then the date. */
export function age(from: string, now: number): string {
  const seconds = Math.floor((now - Date.parse(from)) / 1000);
  if (Number.isNaN(seconds)) return "unknown";
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  if (seconds < 86_400 * 60) return `${Math.floor(seconds / 86_400)} d`;
  return from.slice(0, 10);
}

/** How far in the future: `in 5 d`. */
export function until(at: string, now: number): string {
  const seconds = Math.floor((Date.parse(at) - now) / 1000);
  if (Number.isNaN(seconds)) return "unknown";
  if (seconds <= 0) return "expired";
  if (seconds < 3600) return `in ${Math.max(1, Math.floor(seconds / 60))} min`;
  if (seconds < 86_400) return `in ${Math.floor(seconds / 3600)} h`;
  return `in ${Math.floor(seconds / 86_400)} d`;
}

export function exactTime(at: string): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime())
    ? at
    : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
}

export function percent(part: number, whole: number): number {
  return whole <= 0 ? 0 : Math.min(100, Math.max(0, (part / whole) * 100));
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** What the server says, as it stands between our own sentences: `no node fits` → `No node fits.` */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const [first = ""] = trimmed.split(/\s/, 1);
  // A name, an address or a command stays as it is written.
  const word = /^[a-z]+[,:;]?$/.test(first);
  const begun = word ? trimmed.charAt(0).toUpperCase() + trimmed.slice(1) : trimmed;
  return begun === "" || /[.!?…:)]$/.test(begun) ? begun : `${begun}.`;
}

/** A long id as `op_0195…c3f1`. */
export function shortId(id: string): string {
  return id.length <= 16 ? id : `${id.slice(0, 8)}…${id.slice(-4)}`;
}
