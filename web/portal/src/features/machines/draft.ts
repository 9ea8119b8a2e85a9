export type KeyMode = "generate" | "own";

export interface Draft {
  hostname: string;
  tier: string | null;
  os: string | null;
  keyMode: KeyMode;
  pubkey: string;
}

const DRAFT = "nimbus-create-draft";
const PUBKEY = "nimbus-public-key";

function read(storage: "localStorage" | "sessionStorage", key: string): string | null {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
}

function write(storage: "localStorage" | "sessionStorage", key: string, value: string | null): void {
  try {
    if (value === null) window[storage].removeItem(key);
    else window[storage].setItem(key, value);
  } catch {
    // Storage may be off or full; then the draft lives as long as the page.
  }
}

/**
 * What was typed last time, so that nothing is asked twice. A public key is no secret.
 * A host name that was already sent is used up, unless this is another try with it.
 */
export function loadDraft(retry = false): Draft {
  const pubkey = read("localStorage", PUBKEY) ?? "";
  const empty: Draft = { hostname: "", tier: null, os: null, keyMode: pubkey === "" ? "generate" : "own", pubkey };
  const text = read("sessionStorage", DRAFT);
  if (text === null) return empty;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null) return empty;
    const field = (name: string): string | null => {
      const found: unknown = Reflect.get(value, name);
      return typeof found === "string" ? found : null;
    };
    return {
      hostname: Reflect.get(value, "sent") === true && !retry ? "" : (field("hostname") ?? ""),
      tier: field("tier"),
      os: field("os"),
      keyMode: field("keyMode") === "own" ? "own" : "generate",
      pubkey: field("pubkey") ?? pubkey,
    };
  } catch {
    return empty;
  }
}

export function saveDraft(draft: Draft): void {
  write("sessionStorage", DRAFT, JSON.stringify(draft));
}

/** The server took it: the host name is used up, the choices stay. */
export function settleDraft(draft: Draft): void {
  write("sessionStorage", DRAFT, JSON.stringify({ ...draft, sent: true }));
  if (draft.keyMode === "own") write("localStorage", PUBKEY, draft.pubkey.trim());
}
