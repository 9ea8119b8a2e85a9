/** A WebSocket that a test drives by hand. */
export class FakeSocket {
  static readonly all: FakeSocket[] = [];
  static readonly OPEN = 1;
  readonly url: string;
  readonly protocol: string;
  readonly frames: number[][] = [];
  binaryType = "blob";
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;

  constructor(url: string | URL, protocol: string) {
    this.url = String(url);
    this.protocol = protocol;
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  open(): void {
    this.readyState = FakeSocket.OPEN;
    this.onopen?.();
  }

  /** Something the server says, as bytes after the number of a stream. */
  say(stream: number, text: string): void {
    const payload = new TextEncoder().encode(text);
    const bytes = new Uint8Array(payload.length + 1);
    bytes[0] = stream;
    bytes.set(payload, 1);
    this.onmessage?.({ data: bytes.buffer });
  }

  control(message: Record<string, unknown>): void {
    this.say(3, JSON.stringify(message));
  }

  send(bytes: Uint8Array): void {
    this.frames.push([...bytes]);
  }

  lose(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  close(): void {
    this.readyState = 3;
  }
}
