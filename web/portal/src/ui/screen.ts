/** What a terminal shows, kept until the terminal itself is loaded. */
export class Screen {
  private readonly waiting: (Uint8Array | string)[] = [];
  private sink: ((data: Uint8Array | string) => void) | null = null;

  write(data: Uint8Array | string): void {
    if (this.sink === null) this.waiting.push(data);
    else this.sink(data);
  }

  /** A remark of our own on a line of its own, told apart from the program's output. */
  remark(text: string): void {
    this.write(`\r\n\x1b[2m${text}\x1b[22m\r\n`);
  }

  /** Forgets what is shown and every mode that was set. */
  clear(): void {
    this.write("\x1bc");
  }

  attach(sink: (data: Uint8Array | string) => void): () => void {
    this.sink = sink;
    for (const data of this.waiting.splice(0)) sink(data);
    return () => {
      if (this.sink === sink) this.sink = null;
    };
  }
}
