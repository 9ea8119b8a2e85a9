/** One request as it came in. */
export interface Seen {
  method: string;
  path: string;
  headers: Record<string, string | undefined>;
  body: string;
}

export interface Fault {
  /** Without one the connection is dropped instead of an answer. */
  status?: number;
  code?: string;
  retryable?: boolean;
  headers?: Record<string, string>;
  times?: number;
  /** Do the work first, then lose the answer. */
  after?: boolean;
  /** A body that is no envelope. */
  text?: string;
}

export class FakeNimbus {
  static start(): Promise<FakeNimbus>;
  readonly url: string;
  readonly token: string;
  readonly apiKey: string;
  refuseUpgrades: boolean;
  readonly requests: Seen[];
  readonly resized: { cols: number; rows: number } | undefined;
  stop(): Promise<void>;
  breakNext(match: RegExp, fault?: Fault): void;
  cutAfter(...bytes: number[]): void;
}
