import type { NimbusCollection } from "./types.js";

/**
 * A list: `await` it for one page, or go through all items with `for await`.
 * Nothing is asked before one of the two.
 */
export class NimbusList<T> implements Promise<NimbusCollection<T>>, AsyncIterable<T> {
  readonly [Symbol.toStringTag] = "NimbusList";
  readonly #page: (token: string | undefined) => Promise<NimbusCollection<T>>;
  readonly #from: string | undefined;
  #first: Promise<NimbusCollection<T>> | undefined;

  constructor(from: string | undefined, page: (token: string | undefined) => Promise<NimbusCollection<T>>) {
    this.#from = from;
    this.#page = page;
  }

  #start(): Promise<NimbusCollection<T>> {
    this.#first ??= this.#page(this.#from);
    return this.#first;
  }

  then<A = NimbusCollection<T>, B = never>(
    done?: ((page: NimbusCollection<T>) => A | PromiseLike<A>) | null,
    failed?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#start().then(done, failed);
  }

  catch<B = never>(failed?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<NimbusCollection<T> | B> {
    return this.#start().catch(failed);
  }

  finally(done?: (() => void) | null): Promise<NimbusCollection<T>> {
    return this.#start().finally(done);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T, undefined, undefined> {
    let page = await this.#start();
    for (;;) {
      yield* page.items;
      const next = page.metadata.nextPageToken;
      if (next === undefined) return undefined;
      page = await this.#page(next);
    }
  }
}
