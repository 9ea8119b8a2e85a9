const utf8 = new TextEncoder();

/** What can be written: text as UTF-8, or bytes. */
export type NimbusBytes = string | Uint8Array;

export function toBytes(data: NimbusBytes): Uint8Array {
  return typeof data === "string" ? utf8.encode(data) : data;
}

export function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  // A call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

/** The payload of a frame: text, or base64 where the bytes are no text. */
export function payload(frame: { readonly data: string; readonly encoding?: string | undefined }): Uint8Array {
  return frame.encoding === "base64" ? fromBase64(frame.data) : utf8.encode(frame.data);
}

/** The fields of a frame that carries `bytes`. */
export function carried(bytes: Uint8Array): { data: string; encoding?: "base64" } {
  try {
    return { data: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { data: toBase64(bytes), encoding: "base64" };
  }
}

/** Cuts bytes into pieces of at most `size`. */
export function* pieces(bytes: Uint8Array, size: number): Generator<Uint8Array, void, undefined> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
