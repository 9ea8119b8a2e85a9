export const ROOT: string;
export const BINARY: string;

export class Server {
  static start(): Promise<Server>;
  readonly url: string;
  readonly token: string;
  readonly log: string;
  boot(): Promise<void>;
  halt(signal?: NodeJS.Signals): Promise<void>;
  remove(): Promise<void>;
}
