/** An EventSource that a test drives by hand. */
export class FakeEventSource extends EventTarget {
  static readonly all: FakeEventSource[] = [];
  readonly url: string;
  readyState = 0;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  closed = false;

  constructor(url: string) {
    super();
    this.url = url;
    FakeEventSource.all.push(this);
  }

  static get last(): FakeEventSource {
    const source = FakeEventSource.all.at(-1);
    if (!source) throw new Error("no stream was opened");
    return source;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  fail(final: boolean): void {
    this.readyState = final ? 2 : 0;
    this.onerror?.();
  }

  say(type: string, data: unknown): void {
    this.dispatchEvent(new MessageEvent(type, { data: typeof data === "string" ? data : JSON.stringify(data) }));
  }

  close(): void {
    this.closed = true;
    this.readyState = 2;
  }
}
