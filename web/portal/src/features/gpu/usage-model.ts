import type { UsageRow } from "~/api/gpu";

export interface Total {
  key: string;
  user_id: string;
  user_name: string | null;
  model: string;
  requests: number;
  prompt_tokens: number;
  completion_tokens: number;
  estimated: boolean;
}

/** Adds the days up, by person and model. */
export function totals(rows: readonly UsageRow[]): Total[] {
  const found = new Map<string, Total>();
  for (const row of rows) {
    const key = `${row.user_id} ${row.model}`;
    const before = found.get(key) ?? { key, user_id: row.user_id, user_name: row.user_name ?? null, model: row.model, requests: 0, prompt_tokens: 0, completion_tokens: 0, estimated: false };
    found.set(key, {
      ...before,
      requests: before.requests + row.requests,
      prompt_tokens: before.prompt_tokens + row.prompt_tokens,
      completion_tokens: before.completion_tokens + row.completion_tokens,
      estimated: before.estimated || row.estimated,
    });
  }
  return [...found.values()].sort((a, b) => b.prompt_tokens + b.completion_tokens - a.prompt_tokens - a.completion_tokens);
}

export interface Day {
  day: string;
  tokens: number;
  requests: number;
}

const DAY_MS = 86_400_000;

/** Every day of the period in UTC, also those on which nothing was asked. */
export function perDay(rows: readonly UsageRow[], days: number, now: number): Day[] {
  return Array.from({ length: days }, (_, index) => {
    const day = new Date(now - (days - 1 - index) * DAY_MS).toISOString().slice(0, 10);
    const found = rows.filter((row) => row.day === day);
    return {
      day,
      tokens: found.reduce((sum, row) => sum + row.prompt_tokens + row.completion_tokens, 0),
      requests: found.reduce((sum, row) => sum + row.requests, 0),
    };
  });
}

/** Counts as people read them: `950`, `12.4 k`, `3.1 M`. */
export function count(value: number): string {
  const units = ["", " k", " M", " G"];
  let amount = value;
  let unit = 0;
  while (amount >= 1000 && unit < units.length - 1) {
    amount /= 1000;
    unit += 1;
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)}${units[unit] ?? ""}`;
}
