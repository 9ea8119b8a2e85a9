import type { LogRow } from "~/ui/log-view";

/** More than this is nobody's to read at once; the rest stays on the server. */
const KEEP = 10_000;
/** A program that never ends its line must not make one of many megabytes. */
const LONGEST = 8_192;

/** Bytes of a log, as lines. The last line may still grow. */
export class LogLines {
  private done: LogRow[] = [];
  private open = "";
  private decoder = new TextDecoder();
  private next = 0;
  /** How many of the first lines were let go. */
  dropped = 0;

  push(bytes: Uint8Array): void {
    this.take(this.decoder.decode(bytes, { stream: true }));
  }

  /** What can no longer become a letter is shown as what it is. */
  finish(): void {
    this.take(this.decoder.decode());
  }

  clear(): void {
    this.done = [];
    this.open = "";
    this.decoder = new TextDecoder();
    this.dropped = 0;
  }

  rows(): LogRow[] {
    return this.open === "" ? this.done.slice() : [...this.done, this.row(this.next, this.open)];
  }

  private row(id: number, text: string): LogRow {
    return { id, at: "", loud: false, text };
  }

  private close(text: string): void {
    this.done.push(this.row(this.next, text));
    this.next += 1;
  }

  private take(text: string): void {
    const parts = (this.open + text).split("\n");
    this.open = parts.pop() ?? "";
    for (const part of parts) this.close(part);
    // Of a line that is written over and over only its last state counts.
    const over = this.open.lastIndexOf("\r", this.open.length - 2);
    if (this.open.length > LONGEST && over > 0) this.open = this.open.slice(over + 1);
    while (this.open.length > LONGEST) {
      this.close(this.open.slice(0, LONGEST));
      this.open = this.open.slice(LONGEST);
    }
    if (this.done.length > KEEP) {
      this.dropped += this.done.length - KEEP;
      this.done = this.done.slice(-KEEP);
    }
  }
}
