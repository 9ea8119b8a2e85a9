/** Gives runtimes without explicit resource management the symbol that `await using` looks for. */
const known: { asyncDispose?: symbol } = Symbol;
known.asyncDispose ??= Symbol.for("Symbol.asyncDispose");

export {};
